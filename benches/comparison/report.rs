//! Reports medians with their spread: as a table, as JSON, as a chart.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::statistics::{self, Interval};
use crate::testbed::Device;
use crate::workloads::{self, Figure};

/// The values of each figure and device, one for each round.
#[derive(Default)]
pub(crate) struct Figures(BTreeMap<(&'static str, &'static str), Vec<f64>>);

/// Median and extremes.
#[derive(Clone, Copy)]
pub(crate) struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

/// The device with which the others are compared.
const REFERENCE: Device = Device::Nftables;

impl Figures {
    pub(crate) fn add(&mut self, figure: Figure, device: Device, value: f64) {
        self.0.entry((figure.name, device.name())).or_default().push(value);
    }

    pub(crate) fn spread(&self, figure: Figure, device: Device) -> Option<Spread> {
        let values = self.values(figure, device)?;
        let (min, max) = (values.iter().copied(), values.iter().copied());
        Some(Spread {
            median: statistics::median(values)?,
            min: min.min_by(f64::total_cmp)?,
            max: max.max_by(f64::total_cmp)?,
        })
    }

    fn values(&self, figure: Figure, device: Device) -> Option<&[f64]> {
        self.0.get(&(figure.name, device.name())).map(Vec::as_slice)
    }

    /// Returns the ratio to the reference: the median of the ratios of single rounds.
    pub(crate) fn ratio(&self, figure: Figure, device: Device) -> Option<f64> {
        statistics::median(&self.ratios(figure, device)?)
    }

    fn ratios(&self, figure: Figure, device: Device) -> Option<Vec<f64>> {
        let (values, reference) = (self.values(figure, device)?, self.values(figure, REFERENCE)?);
        Some(statistics::paired_ratios(values, reference))
    }

    /// Formats the median and its uncertainty: the confidence interval of a cost, the extremes of
    /// other figures.
    fn cell(&self, figure: Figure, device: Device) -> Option<String> {
        let Spread { median, min, max } = self.spread(figure, device)?;
        let mut text = match statistics::median_interval(self.values(figure, device)?) {
            Some(Interval { low, high, .. }) if figure.is_cost => {
                format!(" {} ({}..{})", short(median), short(low), short(high))
            }
            _ => format!(" {} [{}..{}]", short(median), short(min), short(max)),
        };
        if let Some(ratio) = self.ratio(figure, device).filter(|_| device != REFERENCE) {
            let _ = write!(text, " **{ratio:.2}**");
            let interval = statistics::median_interval(&self.ratios(figure, device)?);
            if let Some(Interval { low, high, .. }) = interval.filter(|_| figure.is_cost) {
                let _ = write!(text, " ({low:.2}..{high:.2})");
            }
        }
        Some(text)
    }

    /// Returns a note about the confidence intervals of the table; None: it has none.
    pub(crate) fn note(&self) -> Option<String> {
        let values = figures().filter(|figure| figure.is_cost).find_map(|figure| {
            Device::ALL.iter().find_map(|device| self.values(figure, *device))
        })?;
        let confidence = statistics::median_interval(values)?.confidence;
        let rounds = values.len();
        Some(format!(
            "(low..high): confidence interval of the median, {:.0} % with {rounds} rounds",
            100.0 * confidence
        ))
    }

    /// Formats a Markdown table: median, spread, ratio to the reference.
    pub(crate) fn table(&self, devices: &[Device]) -> String {
        let mut text = String::from("| |");
        devices.iter().for_each(|device| {
            let _ = write!(text, " {} |", device.name());
        });
        text.push_str("\n|---|");
        devices.iter().for_each(|_| text.push_str("---:|"));
        for figure in figures() {
            if devices.iter().all(|device| self.spread(figure, *device).is_none()) {
                continue;
            }
            let _ = write!(text, "\n| {}, {} |", figure.title, figure.unit);
            for device in devices {
                let cell = self.cell(figure, *device);
                let _ = write!(text, "{} |", cell.as_deref().unwrap_or(" -"));
            }
        }
        text.push('\n');
        text
    }

    pub(crate) fn json(&self, devices: &[Device]) -> Value {
        let mut list = Vec::new();
        for figure in figures() {
            let mut values = serde_json::Map::new();
            for device in devices {
                if let Some(Spread { median, min, max }) = self.spread(figure, *device) {
                    let rounds = &self.0[&(figure.name, device.name())];
                    let ratios = self.ratios(figure, *device).unwrap_or_default();
                    let value = json!({
                        "median": median,
                        "interval": interval_json(rounds),
                        "least": min,
                        "most": max,
                        "ratio": self.ratio(figure, *device),
                        "ratio_interval": interval_json(&ratios),
                        "rounds": rounds,
                    });
                    values.insert(device.name().to_owned(), value);
                }
            }
            if !values.is_empty() {
                let Figure { name, title, unit, is_cost } = figure;
                list.push(json!({ "name": name, "title": title, "unit": unit, "less_is_better": is_cost, "devices": values }));
            }
        }
        Value::Array(list)
    }

    /// Draws the ratios to the reference as bars, one group for each figure.
    pub(crate) fn chart(&self, devices: &[Device], caption: &str) -> String {
        let devices: Vec<Device> =
            devices.iter().copied().filter(|device| *device != REFERENCE).collect();
        let rows: Vec<Figure> = figures()
            .filter(|figure| devices.iter().any(|device| self.ratio(*figure, *device).is_some()))
            .collect();
        let group = BAR * devices.len() + GAP;
        let height = TOP + group * rows.len() + 30;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" \
             font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
             <text x=\"10\" y=\"18\" font-size=\"14\">Medians as a share of {}'s (1.0)</text>\n",
            REFERENCE.name()
        );
        draw_legend(&mut svg, &devices);
        draw_axis(&mut svg, height - 25);
        for (row, figure) in rows.iter().enumerate() {
            self.draw_bars(&mut svg, *figure, &devices, TOP + group * row);
        }
        let _ = writeln!(
            svg,
            "<text x=\"10\" y=\"{}\" font-size=\"10\" fill=\"#555\">{caption}</text>\n</svg>",
            height - 2
        );
        svg
    }

    /// Draws the group of bars of a figure, `top` pixels below the upper edge.
    fn draw_bars(&self, svg: &mut String, figure: Figure, devices: &[Device], top: usize) {
        let note = if figure.is_cost { " (less is better)" } else { "" };
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}{note}</text>",
            LEFT - 8,
            top + (BAR * devices.len() + 12) / 2,
            figure.title
        );
        for (number, device) in devices.iter().enumerate() {
            let Some(ratio) = self.ratio(figure, *device) else { continue };
            let y = top + BAR * number;
            let end = x_of(ratio);
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" fill=\"{}\"/>\
                 <text x=\"{:.1}\" y=\"{}\" font-size=\"10\">{ratio:.2}</text>",
                end - LEFT as f64,
                BAR - 2,
                colour(*device),
                end + 3.0,
                y + BAR - 4
            );
        }
    }
}

/// Returns the confidence interval of the median of these values.
fn interval_json(values: &[f64]) -> Option<Value> {
    let Interval { low, high, confidence } = statistics::median_interval(values)?;
    Some(json!({ "low": low, "high": high, "confidence": confidence }))
}

fn draw_legend(svg: &mut String, devices: &[Device]) {
    for (number, device) in devices.iter().enumerate() {
        let x = 10 + 110 * number;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"28\" width=\"12\" height=\"12\" fill=\"{}\"/>\
             <text x=\"{}\" y=\"39\">{}</text>",
            colour(*device),
            x + 17,
            device.name()
        );
    }
}

fn draw_axis(svg: &mut String, bottom: usize) {
    for tick in [0.0, 0.5, 1.0, 1.5, 2.0] {
        let x = x_of(tick);
        let stroke = if tick == 1.0 { "black" } else { "#ccc" };
        let _ = writeln!(
            svg,
            "<line x1=\"{x}\" y1=\"{TOP}\" x2=\"{x}\" y2=\"{bottom}\" stroke=\"{stroke}\"/>\
             <text x=\"{x}\" y=\"{}\" text-anchor=\"middle\">{tick}</text>",
            bottom + 14
        );
    }
}

/// Returns the position of a ratio, in pixels from the left edge.
fn x_of(ratio: f64) -> f64 {
    LEFT as f64 + ratio.min(MAX_RATIO) * SCALE
}

fn figures() -> impl Iterator<Item = Figure> {
    workloads::ALL.iter().flat_map(|workload| workload.figures).copied()
}

fn colour(device: Device) -> &'static str {
    match device {
        Device::Route => "#bbbbbb",
        Device::Nftables => "#4477aa",
        Device::Haproxy => "#ddaa33",
        Device::Natbox => "#228833",
        Device::NatboxKeep => "#aa3377",
    }
}

/// Formats a value with three significant digits.
fn short(value: f64) -> String {
    match value {
        value if value >= 10_000.0 => format!("{:.0} k", value / 1000.0),
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

const WIDTH: usize = 900;
const LEFT: usize = 360;
const TOP: usize = 50;
const BAR: usize = 14;
const GAP: usize = 10;
/// Ratio at which longer bars end.
const MAX_RATIO: f64 = 2.4;
/// Length of a ratio of 1, in pixels.
const SCALE: f64 = 210.0;
