//! `token`: a host key and the tokens that it signs, for trying a relay out and for tools.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::time::Duration;
use std::time::SystemTime;

use base64ct::{Base64UrlUnpadded, Encoding};
use ed25519_dalek::SigningKey;
use lexopt::{Arg, Parser, ValueExt};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Failure, print};
use relay_proto::event::Role;
use relay_proto::room::{BOUND_BYTES, MAX_ID_BYTES, PeerId, bound_room_id};
use relay_proto::token::{Claims, encode_key, sign};

pub(super) const HELP: &str = "\
Token:
  --key FILE       the host's private key; made if there is no such file, readable by its owner only
  --room ROOM      the room that the token opens
  --peer ID        who will present it
  --host, --guest  as what; guest by default
  --name NAME      a name for people
  --expires TIME   such as 90s, 30m, 24h, 7d, or never; 24h by default
  --bind-room      turn ROOM into k1.HASH.ROOM, which only this key can open
  --url URL        print the whole URL to connect to, such as ws://127.0.0.1:8443/ws
";

const DEFAULT_LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// What stands in a query as itself: the unreserved characters of RFC 3986 section 2.3.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn token(args: Parser) -> Result<(), Failure> {
    let wish = Wish::parse(args)?;
    let key = key(&wish.key)
        .map_err(|error| Failure::here_and_now(format!("--key {:?} cannot be used: {error}", wish.key)))?;
    print(&format!("{}\n", wish.grant(&key, unix())))
}

/// What the arguments ask for.
#[derive(Debug)]
struct Wish {
    key: String,
    room: String,
    bind_room: bool,
    peer: String,
    role: Role,
    name: Option<String>,
    /// None: for ever.
    lifetime: Option<Duration>,
    url: Option<String>,
}

impl Wish {
    fn parse(mut args: Parser) -> Result<Self, Failure> {
        let (mut key, mut room, mut peer, mut name, mut url) = (None, None, None, None, None);
        let (mut role, mut bind_room, mut lifetime) = (Role::Guest, false, Some(DEFAULT_LIFETIME));
        while let Some(arg) = args.next()? {
            match arg {
                Arg::Long("key") => key = Some(args.value()?.string()?),
                Arg::Long("room") => room = Some(args.value()?.string()?),
                Arg::Long("peer") => peer = Some(args.value()?.string()?),
                Arg::Long("name") => name = Some(args.value()?.string()?),
                Arg::Long("url") => url = Some(args.value()?.string()?),
                Arg::Long("host") => role = Role::Host,
                Arg::Long("guest") => role = Role::Guest,
                Arg::Long("bind-room") => bind_room = true,
                Arg::Long("expires") => {
                    let text = args.value()?.string()?;
                    lifetime = parse_lifetime(&text).ok_or_else(|| {
                        Failure::asked_wrongly(format!(
                            "--expires {text:?} cannot be used; it has to be such as 90s, 30m, 24h, 7d or never"
                        ))
                    })?;
                }
                other => return Err(other.unexpected().into()),
            }
        }
        let required = |value: Option<String>, option| {
            value.ok_or_else(|| Failure::asked_wrongly(format!("{option} is missing; see --help")))
        };
        let wish = Self {
            key: required(key, "--key FILE")?,
            room: required(room, "--room ROOM")?,
            bind_room,
            peer: required(peer, "--peer ID")?,
            role,
            name,
            lifetime,
            url,
        };
        let bound = if bind_room { BOUND_BYTES } else { 0 };
        for (option, id, taken) in [("--room", &wish.room, bound), ("--peer", &wish.peer, 0)] {
            // Rule A8 holds for both.
            let longest = MAX_ID_BYTES - taken;
            if id.len() > longest || PeerId::new(id).is_none() {
                return Err(Failure::asked_wrongly(format!(
                    "{option} {id:?} cannot be used; it has to be 1 to {longest} bytes without control characters"
                )));
            }
        }
        Ok(wish)
    }

    /// The token, or the URL with it.
    fn grant(&self, key: &SigningKey, unix: Duration) -> String {
        let public = key.verifying_key();
        let room_id = if self.bind_room { bound_room_id(&public, &self.room) } else { self.room.clone() };
        let seconds = |time: Duration| i64::try_from(time.as_secs()).ok();
        let claims = Claims {
            room_id: room_id.clone(),
            peer_id: self.peer.clone(),
            role: self.role,
            name: self.name.clone(),
            iat: seconds(unix),
            nbf: None,
            exp: self.lifetime.and_then(|lifetime| seconds(unix.saturating_add(lifetime))),
        };
        let token = sign(key, &claims);
        let Some(url) = &self.url else { return token };
        let room = utf8_percent_encode(&room_id, QUERY);
        match self.role {
            Role::Host => format!("{url}?room={room}&token={token}&pubkey={}", encode_key(&public)),
            Role::Guest => format!("{url}?room={room}&token={token}"),
        }
    }
}

#[allow(clippy::option_option)] // unreadable, for ever, that long
fn parse_lifetime(text: &str) -> Option<Option<Duration>> {
    if text == "never" {
        return Some(None);
    }
    let unit = text.chars().next_back()?;
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86400,
        _ => return None,
    };
    number.checked_mul(seconds).map(Duration::from_secs).map(Some)
}

/// Reads the private key, or makes one: 32 bytes in unpadded base64url.
fn key(path: &str) -> io::Result<SigningKey> {
    let mut secret = [0; 32];
    match fs::read_to_string(path) {
        Ok(text) => {
            let decoded = Base64UrlUnpadded::decode(text.trim(), &mut secret).map(<[u8]>::len);
            if decoded != Ok(secret.len()) {
                let problem = "it does not hold 32 bytes in unpadded base64url";
                return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            #[expect(clippy::disallowed_methods, reason = "a new key is random")]
            getrandom::getrandom(&mut secret)?;
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            writeln!(file, "{}", Base64UrlUnpadded::encode_string(&secret))?;
            eprintln!("{path}: a new host key");
        }
        Err(error) => return Err(error),
    }
    Ok(SigningKey::from_bytes(&secret))
}

#[expect(clippy::disallowed_methods, reason = "a token says when it was made")]
fn unix() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use relay_proto::token::verify;

    fn wish(args: &[&str]) -> Result<Wish, Failure> {
        Wish::parse(Parser::from_args(args))
    }

    #[test]
    fn a_guest_gets_a_token_for_a_day() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let wish = wish(&["--key", "k", "--room", "lobby", "--peer", "ann"]).unwrap();
        let token = wish.grant(&key, Duration::from_secs(1000));
        let claims = verify(&token, &key.verifying_key(), Duration::from_secs(1000)).unwrap();
        assert_eq!((claims.role, claims.exp), (Role::Guest, Some(1000 + 86400)));
        assert_eq!((claims.room_id.as_str(), claims.peer_id.as_str()), ("lobby", "ann"));
    }

    #[test]
    fn a_host_gets_the_whole_url() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let args =
            ["--key=k", "--room=a b&c", "--peer=h", "--host", "--expires=never", "--url=ws://[::1]:1/ws"];
        let url = wish(&args).unwrap().grant(&key, Duration::ZERO);
        assert!(url.starts_with("ws://[::1]:1/ws?room=a%20b%26c&token=ey"), "{url}");
        assert!(url.ends_with(&format!("&pubkey={}", encode_key(&key.verifying_key()))), "{url}");
    }

    #[test]
    fn a_bound_room_carries_the_key() {
        let key = SigningKey::from_bytes(&[7; 32]);
        let wish = wish(&["--key=k", "--room=lobby", "--peer=h", "--host", "--bind-room"]).unwrap();
        let claims = verify(&wish.grant(&key, Duration::ZERO), &key.verifying_key(), Duration::ZERO).unwrap();
        assert_eq!(claims.room_id, bound_room_id(&key.verifying_key(), "lobby"));
    }

    #[test]
    fn a_bound_room_is_a_valid_room() {
        let args = |room: usize| {
            ["--key=k", "--peer=h", "--host", "--bind-room", &format!("--room={}", "x".repeat(room))]
                .map(str::to_owned)
        };
        let wish = |room| wish(&args(room).each_ref().map(String::as_str));
        let longest = wish(98).unwrap();
        let key = SigningKey::from_bytes(&[7; 32]);
        let claims =
            verify(&longest.grant(&key, Duration::ZERO), &key.verifying_key(), Duration::ZERO).unwrap();
        assert_eq!(claims.room_id.len(), 128);
        assert!(wish(99).unwrap_err().line.contains("cannot be used"));
    }

    #[test]
    fn lifetimes() {
        assert_eq!(parse_lifetime("90s"), Some(Some(Duration::from_secs(90))));
        assert_eq!(parse_lifetime("7d"), Some(Some(Duration::from_secs(7 * 86400))));
        assert_eq!(parse_lifetime("never"), Some(None));
        for bad in ["", "h", "24", "1w", "-1h", "1.5h", "99999999999999999999d", "1€"] {
            assert_eq!(parse_lifetime(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_missing_or_cannot_be_used_is_named() {
        let line = |args: &[&str]| wish(args).unwrap_err().line;
        assert!(line(&["--room=r", "--peer=p"]).starts_with("--key FILE is missing"));
        assert!(line(&["--key=k", "--room=r\n", "--peer=p"]).starts_with("--room \"r\\n\" cannot be used"));
        assert!(line(&["--key=k", "--expires=soon"]).starts_with("--expires \"soon\" cannot be used"));
        assert!(line(&["--gast"]).contains("--gast"));
    }
}
