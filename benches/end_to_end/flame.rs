//! Stacks of `perf script`, folded and drawn as a flame graph: width is time, what stands on a box is called by it.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::chart::escape;

const WIDTH: f64 = 1200.0;
const ROW: f64 = 17.0;

/// Narrower boxes are not drawn, pixels.
const NARROWEST: f64 = 0.4;

/// Mean width of a letter, pixels.
const LETTER: f64 = 6.6;

/// A function and what it called.
#[derive(Default)]
struct Frame {
    samples: u64,
    callees: BTreeMap<String, Frame>,
}

/// All samples, by thread and stack.
#[derive(Default)]
pub struct Stacks {
    root: Frame,
    alone: BTreeMap<String, u64>,
}

impl Stacks {
    /// Reads the output of `perf script -F comm,ip,sym,dso`: per sample a line with the thread's name, its frames from the
    /// innermost on, an empty line.
    pub fn read(text: &str) -> Stacks {
        let mut stacks = Stacks::default();
        for sample in text.split("\n\n") {
            let mut lines = sample.lines().filter(|line| !line.is_empty());
            let Some(thread) = lines.next() else { continue };
            let mut frames: Vec<String> = lines.filter_map(function).collect();
            // A file without names would be a tower of itself.
            frames.dedup_by(|one, other| one == other && one.starts_with('['));
            if let Some(innermost) = frames.first() {
                *stacks.alone.entry(innermost.clone()).or_default() += 1;
            }
            frames.push(thread.trim().to_owned());
            stacks.add(frames);
        }
        stacks
    }

    /// Adds a stack, innermost first.
    fn add(&mut self, mut frames: Vec<String>) {
        let mut at = &mut self.root;
        at.samples += 1;
        while let Some(frame) = frames.pop() {
            at = at.callees.entry(frame).or_default();
            at.samples += 1;
        }
    }

    /// Samples.
    pub fn total(&self) -> u64 {
        self.root.samples
    }

    /// Functions by their share of the samples, without what they called.
    pub fn heaviest(&self, count: usize) -> Vec<(&str, f64)> {
        let share = |samples: u64| samples as f64 / self.total().max(1) as f64;
        let mut all: Vec<(&str, f64)> = self.alone.iter().map(|(name, count)| (name.as_str(), share(*count))).collect();
        all.sort_by(|one, other| other.1.total_cmp(&one.1));
        all.truncate(count);
        all
    }

    /// The graph; point at a box for its whole name and share.
    pub fn svg(&self, title: &str) -> String {
        let scale = (WIDTH - 20.0) / self.total().max(1) as f64;
        let depth = depth(&self.root, scale);
        let bottom = 44.0 + depth as f64 * ROW;
        let mut body = String::new();
        let mut x = 10.0;
        for (name, frame) in &self.root.callees {
            self.draw(&mut body, name, frame, x, bottom - ROW, scale);
            x += frame.samples as f64 * scale;
        }
        let height = bottom + 10.0;
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
             height=\"{height}\">\n<style>text {{ font: 11px ui-monospace, Menlo, Consolas, monospace; fill: #1f2328 }} \
             rect:hover {{ stroke: #1f2328 }}</style>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
             <text x=\"10\" y=\"22\" style=\"font-size:14px\">{}</text>\n{body}</svg>\n",
            escape(title)
        )
    }

    fn draw(&self, body: &mut String, name: &str, frame: &Frame, x: f64, y: f64, scale: f64) {
        let width = frame.samples as f64 * scale;
        if width < NARROWEST {
            return;
        }
        let share = frame.samples as f64 * 100.0 / self.total() as f64;
        write!(
            body,
            "<g><title>{} ({share:.2} %)</title><rect x=\"{x:.1}\" y=\"{y}\" width=\"{:.1}\" height=\"{}\" rx=\"1\" \
             fill=\"{}\"/>",
            escape(name),
            (width - 0.3).max(0.2),
            ROW - 1.0,
            colour(name)
        )
        .unwrap();
        let room = ((width - 6.0) / LETTER) as usize;
        if room >= 3 {
            let short: String = if name.chars().count() > room {
                name.chars().take(room - 1).chain(['…']).collect()
            } else {
                name.to_owned()
            };
            write!(body, "<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", x + 3.0, y + ROW - 5.0, escape(&short)).unwrap();
        }
        body.push_str("</g>\n");
        let mut x = x;
        for (name, callee) in &frame.callees {
            self.draw(body, name, callee, x, y - ROW, scale);
            x += callee.samples as f64 * scale;
        }
    }
}

/// Rows that will be drawn above the root.
fn depth(frame: &Frame, scale: f64) -> usize {
    let drawn = frame.callees.values().filter(|callee| callee.samples as f64 * scale >= NARROWEST);
    drawn.map(|callee| 1 + depth(callee, scale)).max().unwrap_or(0)
}

/// The function of a frame's line, `ADDRESS NAME (FILE)`, without address, file and hash; of a file without names, the
/// file.
fn function(line: &str) -> Option<String> {
    let (_, name) = line.trim().split_once(' ')?;
    let (name, file) = name.rsplit_once(" (").unwrap_or((name, ""));
    if name == "[unknown]" {
        let file = file.trim_end_matches(')').rsplit('/').next().unwrap_or_default();
        return Some(format!("[{}]", file.trim_matches(['[', ']'])));
    }
    let name = match name.rsplit_once("::h") {
        Some((path, hash)) if hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => path,
        _ => name,
    };
    Some(name.to_owned())
}

/// Ours, librdkafka's, the model runtime's, the rest: each in shades of its own, the same for the same name.
fn colour(name: &str) -> String {
    let shade = name.bytes().fold(7_u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(byte.into())) % 14;
    let hue = match name {
        ours if ours.contains("fraud_") => 130,
        kafka if kafka.starts_with("rd_") || kafka.starts_with("rdk") => 210,
        runtime if runtime.contains("onnxruntime") || runtime.contains("Ort") => 45,
        _ => 20,
    };
    format!("hsl({hue} {}% {}%)", 55 + shade, 66 + shade)
}
