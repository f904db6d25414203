//! The text format of Prometheus, version 0.0.4: families with help and type, samples with labels. Never: what is said.
//!
//! ```text
//! # HELP name what it is
//! # TYPE name counter
//! name{label="value",...} 12
//! ```

use std::fmt::{Display, Write as _};

/// A text that grows.
#[derive(Debug, Default)]
pub struct Text(String);

impl Text {
    /// Media type of the text.
    pub const CONTENT_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins a family; its samples follow.
    pub fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One sample.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            self.0.push(if at == 0 { '{' } else { ',' });
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{label}=\"{text}\"");
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A gauge that is alone in its family.
    pub fn gauge(&mut self, name: &str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(name, &[], value);
    }

    /// A counter that is alone in its family.
    pub fn counter(&mut self, name: &str, help: &str, labels: &[(&str, &str)], value: impl Display) {
        self.family(name, "counter", help);
        self.sample(name, labels, value);
    }

    /// The whole text.
    pub fn into_string(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped() {
        let mut text = Text::default();
        text.family("x", "gauge", "an x");
        text.sample("x", &[("a", "b"), ("zone", "\"r\\1\"\n")], 1.5);
        text.sample("x", &[], 2);
        let expected = "# HELP x an x\n# TYPE x gauge\nx{a=\"b\",zone=\"\\\"r\\\\1\\\"\\n\"} 1.5\nx 2\n";
        assert_eq!(text.into_string(), expected);
    }
}
