//! What the reports of all benchmarks have in common: figures, and the ratios that this project wants to reach.

use std::fmt::Write;

use serde::Serialize;

/// The middle value, or the mean of the two in the middle.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => None,
        odd if odd % 2 == 1 => Some(values[middle]),
        _ => Some(f64::midpoint(values[middle - 1], values[middle])),
    }
}

/// The value with three digits or so, or a dash.
pub fn number(value: Option<f64>) -> String {
    match value {
        Some(value) if value >= 100.0 => fixed(Some(value), 0),
        Some(value) if value >= 10.0 => fixed(Some(value), 1),
        _ => fixed(value, 2),
    }
}

/// The value with `digits` digits after the point, or a dash.
pub fn fixed(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
}

/// One requirement and its measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Bar {
    /// What is compared.
    pub what: String,
    /// Which side of the bound is good.
    pub direction: Direction,
    /// The bound.
    pub required: f64,
    /// The measurement.
    pub measured: f64,
}

/// The good side of a bound.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub enum Direction {
    /// As much as the bound or more.
    AtLeast,
    /// As much as the bound or less.
    AtMost,
}

impl Bar {
    fn is_met(&self) -> bool {
        match self.direction {
            Direction::AtLeast => self.measured >= self.required,
            Direction::AtMost => self.measured <= self.required,
        }
    }
}

/// The bars in Markdown; nothing if there are none.
pub fn bar_table(bars: &[Bar]) -> String {
    if bars.is_empty() {
        return String::new();
    }
    let mut text = String::from("### bars\n\n| what | required | measured | |\n|---|--:|--:|---|\n");
    for bar in bars {
        let sign = if bar.direction == Direction::AtLeast { ">=" } else { "<=" };
        let met = if bar.is_met() { "met" } else { "MISSED" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {sign} {:.2} | {:.2} | {met} |", bar.what, bar.required, bar.measured);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn medians() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }
}
