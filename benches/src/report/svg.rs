//! A chart as SVG by hand: groups of horizontal bars, each group scaled to its own largest figure,
//! each bar with its figure.

use std::fmt::Write;

use crate::figures::{Figures, Row, text};
use crate::peers::Named;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 150.0;
const RIGHT: f64 = 80.0;
const BAR: f64 = 16.0;
const HEAD: f64 = 26.0;
const COLORS: &[&str] =
    &["#1b6ca8", "#5fa8d3", "#d1495b", "#edae49", "#66a182", "#8d6a9f", "#7f7f7f", "#b0a990"];

#[expect(clippy::cast_precision_loss, reason = "a few bars")]
pub(crate) fn chart(title: &str, rows: &[&Row], engines: &[Named], figures: &Figures) -> String {
    let (mut body, mut top) = (String::new(), 34.0);
    for row in rows {
        let bars: Vec<(usize, &str, f64)> = engines
            .iter()
            .enumerate()
            .filter_map(|(i, (name, _))| Some((i, *name, figures.cell(name, row.id)?.median)))
            .collect();
        if bars.is_empty() {
            continue;
        }
        put(&mut body, 8.0, top + 14.0, "start", "bold", row.title);
        let largest = bars.iter().map(|bar| bar.2).fold(f64::MIN_POSITIVE, f64::max);
        for (at, (color, name, value)) in bars.iter().enumerate() {
            let y = top + HEAD + at as f64 * BAR;
            let width = value / largest * (WIDTH - LEFT - RIGHT);
            let color = COLORS.get(color % COLORS.len()).copied().unwrap_or("#777777");
            put(&mut body, LEFT - 6.0, y + 10.0, "end", "normal", name);
            let _ok = writeln!(
                body,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" \
                 fill=\"{color}\"/>",
                BAR - 4.0
            );
            put(&mut body, LEFT + width + 4.0, y + 10.0, "start", "normal", &text(*value));
        }
        top += HEAD + bars.len() as f64 * BAR + 10.0;
    }
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{top}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n"
    );
    put(&mut out, 8.0, 22.0, "start", "bold", title);
    out.push_str(&body);
    out.push_str("</svg>\n");
    out
}

/// One text. Titles and names are our own and hold nothing that XML would read.
fn put(out: &mut String, x: f64, y: f64, anchor: &str, weight: &str, text: &str) {
    let _ok = writeln!(
        out,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" font-weight=\"{weight}\">\
         {text}</text>"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::figures::STORE_ROWS;

    #[test]
    fn a_chart_has_a_bar_for_each_figure_and_none_for_what_is_missing() {
        let mut figures = Figures::default();
        figures.add("a", "put", 1000.0);
        figures.add("b", "put", 500.0);
        let rows: Vec<&Row> = STORE_ROWS.iter().collect();
        let chart = chart("Puts", &rows, &[("a", ""), ("b", ""), ("c", "")], &figures);
        assert_eq!(chart.matches("<rect x=").count(), 2);
        assert!(chart.contains("1.0 k") && chart.contains(">500<"), "{chart}");
        assert!(chart.ends_with("</svg>\n"));
    }
}
