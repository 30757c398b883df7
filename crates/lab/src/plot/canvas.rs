//! Writer of SVG elements.

use std::fmt::Write as _;

/// Space around and between panels, in pixels.
pub(super) const GAP: f64 = 16.0;
/// Height of a title line, in pixels.
pub(super) const TITLE: f64 = 24.0;
/// Number of palette colors; higher indices wrap around.
pub(super) const COLORS: usize = 7;
/// Mean width of a character of running text, in pixels.
const CHARACTER: f64 = 6.9;

/// Text and palette colors of the light and the dark theme.
const STYLE: &str = "\
text{font:12px system-ui,-apple-system,'Segoe UI',Helvetica,Arial,sans-serif;fill:#1f2937}\
.title{font-weight:600;font-size:13px}.faint{fill:#6b7280;font-size:11px}.cell{font-size:10.5px}.pale{fill:#fff}\
.ink{fill:#1f2937}\
.paper{fill:#fff;stroke:#d7dbe0}.grid{stroke:#e5e7eb}.frame{stroke:#9ca3af}.rule{stroke:#6b7280;stroke-dasharray:4 3}\
.mark{fill:none;stroke:#111827;stroke-width:2}.whisker{stroke:#1f2937;stroke-width:1.4}\
.line{fill:none;stroke-width:1.8;stroke-linejoin:round}.dot{stroke-width:6;stroke-linecap:round}\
.band{fill-opacity:.16;stroke:none}\
.c0{stroke:#0f766e;fill:#0f766e}.c1{stroke:#c2410c;fill:#c2410c}.c2{stroke:#2563a8;fill:#2563a8}\
.c3{stroke:#8a4fb5;fill:#8a4fb5}\
.c4{stroke:#8a6d1d;fill:#8a6d1d}.c5{stroke:#b83268;fill:#b83268}.c6{stroke:#5b6573;fill:#5b6573}.line{fill:none}\
.band{stroke:none}\
@media(prefers-color-scheme:dark){text{fill:#e5e7eb}.faint{fill:#9ca3af}.paper{fill:#14181d;stroke:#2d343c}\
.grid{stroke:#2a3037}\
.frame{stroke:#6b7280}.mark{stroke:#f9fafb}.whisker{stroke:#e5e7eb}\
.c0{stroke:#2fb3a5;fill:#2fb3a5}.c1{stroke:#f0803c;fill:#f0803c}.c2{stroke:#6ea8e6;fill:#6ea8e6}\
.c3{stroke:#bd8be0;fill:#bd8be0}\
.c4{stroke:#cfae4c;fill:#cfae4c}.c5{stroke:#ea729f;fill:#ea729f}.c6{stroke:#9aa5b3;fill:#9aa5b3}.line{fill:none}\
.band{stroke:none}}";

/// Elements of a document that is being drawn.
#[derive(Debug, Default)]
pub(super) struct Canvas {
    body: String,
}

impl Canvas {
    /// Draws text at a point; `anchor` is `start`, `middle` or `end`.
    pub(super) fn text(&mut self, (x, y): (f64, f64), class: &str, anchor: &str, text: &str) {
        let text = escape(text);
        self.push(&format!(r#"<text x="{x:.1}" y="{y:.1}" class="{class}" text-anchor="{anchor}">{text}</text>"#));
    }

    /// Draws text rotated by 90 degrees to read upwards, centered at a point.
    pub(super) fn upright_text(&mut self, (x, y): (f64, f64), class: &str, text: &str) {
        let text = escape(text);
        self.push(&format!(
            "<text transform=\"translate({x:.1} {y:.1}) rotate(-90)\" class=\"{class}\" text-anchor=\"middle\">\
             {text}</text>"
        ));
    }

    pub(super) fn line(&mut self, from: (f64, f64), to: (f64, f64), class: &str) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.push(&format!(r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" class="{class}"/>"#));
    }

    pub(super) fn path(&mut self, points: &[(f64, f64)], class: &str) {
        let tag = if class.contains("band") { "polygon" } else { "polyline" };
        let points = points.iter().fold(String::new(), |mut text, (x, y)| {
            let _ = write!(text, "{}{x:.1},{y:.1}", if text.is_empty() { "" } else { " " });
            text
        });
        self.push(&format!(r#"<{tag} points="{points}" class="{class}"/>"#));
    }

    /// Draws a rectangle with the attributes `look`.
    pub(super) fn rect(&mut self, corner: (f64, f64), size: (f64, f64), look: &str) {
        let ((x, y), (width, height)) = (corner, size);
        self.push(&format!(r#"<rect x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}" {look}/>"#));
    }

    pub(super) fn document(self, width: f64, height: f64) -> String {
        let (w, h) = (width - 1.0, height - 1.0);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
            height=\"{height:.0}\">\n\
             <style>{STYLE}</style>\n\
             <rect x=\"0.5\" y=\"0.5\" width=\"{w:.0}\" height=\"{h:.0}\" rx=\"8\" class=\"paper\"/>\n{}</svg>\n",
            self.body
        )
    }

    fn push(&mut self, element: &str) {
        self.body.push_str(element);
        self.body.push('\n');
    }
}

/// Estimated width of a text, in pixels.
pub(super) fn width_of(text: &str) -> f64 {
    text.chars().count() as f64 * CHARACTER
}

/// Escapes text for an XML document. Control characters become U+FFFD.
///
/// ```
/// assert_eq!(wsd_lab::plot::escape("a < b"), "a &lt; b");
/// ```
#[must_use]
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            // XML does not allow control characters, escaped or not.
            c if c.is_control() && !matches!(c, '\n' | '\t') => out.push('\u{FFFD}'),
            c => out.push(c),
        }
    }
    out
}
