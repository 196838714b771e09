//! The figures that depend on how much there is to do, as pictures.

use std::collections::BTreeMap;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use serde::Serialize;

/// A place in a plot.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Point {
    pub(crate) plot: &'static str,
    /// Which of the lines in it.
    pub(crate) line: String,
    pub(crate) x: f64,
    pub(crate) y: f64,
}

/// A picture; both axes are logarithmic.
struct Plot {
    name: &'static str,
    title: &'static str,
    x: &'static str,
    y: &'static str,
}

const PLOTS: &[Plot] = &[
    Plot {
        name: "agent-cpu",
        title: "What the agent's processes take",
        x: "attempts a second",
        y: "% of a processor",
    },
    Plot { name: "memory", title: "What an agent keeps in memory", x: "addresses", y: "MiB" },
    Plot { name: "scrape", title: "How long a scrape takes", x: "addresses", y: "ms" },
    Plot { name: "scrape-size", title: "How large a scrape is", x: "addresses", y: "MiB" },
    Plot {
        name: "workers",
        title: "nginx, a connection to the upstream for each request",
        x: "workers",
        y: "requests a second",
    },
    Plot {
        name: "system-calls",
        title: "What is added to system calls that are no connect()",
        x: "system calls a second",
        y: "% of a processor",
    },
];

const SIZE: (u32, u32) = (720, 420);

/// Draws each that there are points of. Where nothing was measured that is more than none, there is no picture: a logarithmic axis has no
/// place for it, and the library would look for one for ever.
pub(crate) fn draw(points: &[Point], directory: &Path) -> Result<()> {
    for plot in PLOTS {
        let own: Vec<_> = points.iter().filter(|point| point.plot == plot.name).collect();
        let path = directory.join(format!("performance-{}.svg", plot.name));
        if !own.iter().any(|point| point.y > 0.0) {
            // That of an earlier run says something else.
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("remove {}", path.display()));
                }
                _ => continue,
            }
        }
        plot.draw(&own, &path)
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("draw {}", path.display()))?;
        println!("bench: wrote {}", path.display());
    }
    Ok(())
}

impl Plot {
    fn draw(&self, points: &[&Point], path: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let mut lines: BTreeMap<&str, Vec<(f64, f64)>> = BTreeMap::new();
        for point in points {
            lines.entry(&point.line).or_default().push((point.x, point.y.max(f64::MIN_POSITIVE)));
        }
        let root = SVGBackend::new(path, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (x, y) = (around(points.iter().map(|point| point.x)), around(points.iter().map(|point| point.y)));
        let mut chart = ChartBuilder::on(&root)
            .caption(self.title, ("sans-serif", 18))
            .margin(12)
            .x_label_area_size(40)
            .y_label_area_size(64)
            .build_cartesian_2d(x.log_scale(), y.log_scale())?;
        chart.configure_mesh().x_desc(self.x).y_desc(self.y).light_line_style(WHITE.mix(0.0)).draw()?;
        for (number, (line, mut places)) in lines.into_iter().enumerate() {
            places.sort_by(|(one, _), (other, _)| one.total_cmp(other));
            let colour = Palette99::pick(number).to_rgba();
            chart
                .draw_series(LineSeries::new(places.clone(), colour.stroke_width(2)))?
                .label(line)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
            chart.draw_series(places.into_iter().map(|place| Circle::new(place, 3, colour.filled())))?;
        }
        let place = SeriesLabelPosition::UpperLeft;
        chart.configure_series_labels().position(place).background_style(WHITE.mix(0.8)).draw()?;
        root.present()?;
        Ok(())
    }
}

/// The range of an axis with room on both sides.
fn around(values: impl Iterator<Item = f64>) -> std::ops::Range<f64> {
    let values: Vec<f64> = values.filter(|value| *value > 0.0).collect();
    let least = values.iter().copied().fold(f64::INFINITY, f64::min);
    let most = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
    least / 1.5..most * 1.5
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_its_lines() {
        let directory = tempfile::tempdir().unwrap();
        let point = |line: &str, x, y| Point { plot: "scrape", line: line.to_owned(), x, y };
        let points =
            [point("one line", 10.0, 1.0), point("one line", 10_000.0, 90.0), point("other", 10.0, 0.0)];
        fs::write(directory.path().join("performance-workers.svg"), "of an earlier run").unwrap();
        let none = Point { plot: "workers", line: "agent".to_owned(), x: 1.0, y: 0.0 };
        draw(&[&points[..], &[none]].concat(), directory.path()).unwrap();
        let drawn = fs::read_to_string(directory.path().join("performance-scrape.svg")).unwrap();
        for words in ["<svg", "How long a scrape takes", "one line", "other", "addresses"] {
            assert!(drawn.contains(words), "{words}");
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "only those with points");
    }
}
