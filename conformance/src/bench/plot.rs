//! A picture of latencies.

use std::path::Path;

use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::report::millis;

const SIZE: (u32, u32) = (900, 480);
const POINTS: u32 = 400;
const LINE: RGBColor = RGBColor(0x1f, 0x5f, 0xa8);

/// Draws which part of all messages took longer than how long; the tail has as much room as the rest.
pub(crate) fn draw(file: &Path, title: &str, latency: &Histogram<u64>) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("--plot {}: {error}", file.display());
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE).map_err(|error| failed(&error))?;
    let (mut nines, mut points) = (0.0, Vec::new());
    #[expect(clippy::cast_precision_loss, reason = "a rounded end of an axis")]
    let most = (latency.len().max(10) as f64).log10();
    for point in 0..=POINTS {
        nines = most * f64::from(point) / f64::from(POINTS);
        points.push((nines, millis(latency, 1.0 - 10_f64.powf(-nines))));
    }
    let highest = millis(latency, 1.0).max(0.001);
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..nines, 0.0..highest * 1.05)
        .map_err(|error| failed(&error))?;
    chart
        .configure_mesh()
        .x_desc("of all messages were not slower")
        .y_desc("milliseconds from the intended time")
        .x_label_formatter(&|nines| percent(*nines))
        .x_labels(8)
        .label_style(("sans-serif", 13))
        .light_line_style(TRANSPARENT)
        .draw()
        .map_err(|error| failed(&error))?;
    chart.draw_series(LineSeries::new(points, LINE.stroke_width(2))).map_err(|error| failed(&error))?;
    root.present().map_err(|error| failed(&error))
}

/// 1 is 90 %, 2 is 99 %.
fn percent(nines: f64) -> String {
    let percent = 100.0 - 100.0 * 10_f64.powf(-nines);
    let digits = if nines > 2.01 { 3 } else { usize::from(nines > 1.01) };
    format!("{percent:.digits$} %")
}
