//! The window of a sender in a closed loop.

/// Which of a sender's messages have not reached everybody yet.
pub(crate) struct Flight {
    /// How many receivers each message of the window has reached, by its number modulo the window.
    landed: Vec<usize>,
    receivers: usize,
    /// The first that has not reached everybody.
    base: u64,
    /// The first that was not sent.
    next: u64,
}

impl Flight {
    pub(crate) fn new(window: usize, receivers: usize) -> Self {
        Self { landed: vec![0; window], receivers, base: 0, next: 0 }
    }

    /// Whether another one may be sent; it is on its way then.
    pub(crate) fn take_off(&mut self) -> bool {
        let free = self.next - self.base < self.landed.len() as u64;
        self.next += u64::from(free);
        free
    }

    /// One has reached another receiver. Whether there is room for more.
    pub(crate) fn land(&mut self, number: u64) -> bool {
        if !(self.base..self.next).contains(&number) {
            return false;
        }
        let place = self.place(number);
        self.landed[place] += 1;
        let before = self.base;
        while self.base < self.next {
            let place = self.place(self.base);
            if self.landed[place] < self.receivers {
                break;
            }
            self.landed[place] = 0;
            self.base += 1;
        }
        self.base > before
    }

    /// Waits for none of those that are on their way.
    pub(crate) fn forget(&mut self) {
        self.landed.fill(0);
        self.base = self.next;
    }

    #[expect(clippy::cast_possible_truncation, reason = "a remainder of a length")]
    fn place(&self, number: u64) -> usize {
        (number % self.landed.len() as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_moves_when_its_oldest_has_reached_everybody() {
        let mut flight = Flight::new(2, 2);
        assert!(flight.take_off() && flight.take_off() && !flight.take_off());
        assert!(!flight.land(1) && !flight.land(1) && !flight.take_off());
        assert!(!flight.land(0) && flight.land(0));
        assert!(flight.take_off() && flight.take_off() && !flight.take_off());
        assert!(!flight.land(1), "it has landed everywhere already");
        flight.forget();
        assert!(flight.take_off() && !flight.land(3) && flight.take_off());
    }
}
