//! Horizontal bars as an SVG that can be read on light and on dark pages.
//!
//! It brings its own background, for a page may show it on either, and follows the reader's colour scheme.

use std::fmt::Write;

/// A chart: groups of bars, each group on a scale of its own.
pub struct Chart {
    pub title: String,
    pub subtitle: String,
    pub groups: Vec<Bars>,
    /// What it was measured on.
    pub footer: String,
}

/// Bars that are compared with each other.
pub struct Bars {
    pub title: String,
    pub bars: Vec<Bar>,
}

/// One bar.
pub struct Bar {
    pub label: String,
    pub value: f64,
    /// Lowest and highest of the rounds.
    pub range: (f64, f64),
    /// What stands behind the bar.
    pub text: String,
    pub kind: Kind,
}

/// Whose bar it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Ours,
    Reference,
    Other,
}

const WIDTH: f64 = 860.0;
const LEFT: f64 = 300.0;
const RIGHT: f64 = 150.0;
const ROW: f64 = 26.0;
const STYLE: &str = "
  text { font: 13px system-ui, -apple-system, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif; fill: #1f2328 }
  .page { fill: #ffffff; stroke: #d1d9e0 } .title { font-size: 16px; font-weight: 600 }
  .quiet { fill: #59636e; font-size: 12px } .group { font-weight: 600 } .label { text-anchor: end }
  .ours { fill: #1a7f37 } .reference { fill: #8c959f } .other { fill: #0969da } .range { stroke: #1f2328 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc } .page { fill: #0d1117; stroke: #3d444d } .quiet { fill: #9198a1 }
    .ours { fill: #3fb950 } .reference { fill: #656c76 } .other { fill: #4493f8 } .range { stroke: #f0f6fc }
  }
";

impl Chart {
    /// The SVG's text.
    pub fn svg(&self) -> String {
        let mut body = String::new();
        let mut y = 34.0;
        text(&mut body, "title", 20.0, y, &self.title);
        y += 20.0;
        text(&mut body, "quiet", 20.0, y, &self.subtitle);
        for group in &self.groups {
            y += 34.0;
            text(&mut body, "group", 20.0, y, &group.title);
            y += 10.0;
            let most = group.bars.iter().map(|bar| bar.range.1.max(bar.value)).fold(f64::MIN_POSITIVE, f64::max);
            for bar in &group.bars {
                draw(&mut body, bar, y, (WIDTH - LEFT - RIGHT) / most);
                y += ROW;
            }
        }
        y += 22.0;
        text(&mut body, "quiet", 20.0, y, &self.footer);
        let height = y + 18.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\" role=\"img\" aria-label=\"{}\">\n<style>{STYLE}</style>\n<rect class=\"page\" \
             x=\"0.5\" y=\"0.5\" width=\"{}\" height=\"{}\" rx=\"6\"/>\n{body}</svg>\n",
            escape(&self.title),
            WIDTH - 1.0,
            height - 1.0
        )
    }
}

fn draw(body: &mut String, bar: &Bar, y: f64, scale: f64) {
    let class = match bar.kind {
        Kind::Ours => "ours",
        Kind::Reference => "reference",
        Kind::Other => "other",
    };
    let (width, middle) = ((bar.value * scale).max(1.0), y + ROW / 2.0);
    text(body, "label", LEFT - 10.0, middle + 4.5, &bar.label);
    writeln!(
        body,
        "<rect class=\"{class}\" x=\"{LEFT}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" rx=\"2\"/>",
        y + 4.0,
        ROW - 8.0
    )
    .unwrap();
    let (low, high) = (LEFT + bar.range.0 * scale, LEFT + bar.range.1 * scale);
    if high - low > 1.0 {
        writeln!(body, "<path class=\"range\" fill=\"none\" d=\"M{low:.1} {middle}H{high:.1}\"/>").unwrap();
    }
    text(body, "value", LEFT + width.max(bar.range.1 * scale) + 8.0, middle + 4.5, &bar.text);
}

fn text(body: &mut String, class: &str, x: f64, y: f64, content: &str) {
    writeln!(body, "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escape(content)).unwrap();
}

/// A number of thousands, short.
pub fn thousands(value: f64) -> String {
    match value {
        millions if millions >= 1000.0 => format!("{:.2} M", millions / 1000.0),
        large if large >= 10.0 => format!("{large:.0} k"),
        small => format!("{small:.1} k"),
    }
}

/// As text within XML.
pub fn escape(content: &str) -> String {
    content.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
