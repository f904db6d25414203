//! Named texts in one line, `town=danghu note="two words"`: printed and read. Never: which names there are.
//!
//! Invariant: what is printed reads back the same, whatever is in the texts.

use std::collections::BTreeMap;

/// As one line. A text with a space, a quote or nothing in it stands in quotes.
pub(crate) fn pairs_text(pairs: &BTreeMap<String, String>) -> String {
    let texts = pairs.iter().map(|(key, value)| {
        match value.is_empty() || value.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\\')) {
            true => format!("{key}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")),
            false => format!("{key}={value}"),
        }
    });
    texts.collect::<Vec<_>>().join(" ")
}

/// Reads such a line.
pub(crate) fn parse_pairs(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut pairs = BTreeMap::new();
    let mut rest = text.trim();
    while !rest.is_empty() {
        let wrong = || format!("`{rest}` does not begin with NAME=VALUE (a value with spaces stands in quotes)");
        let (key, after) = rest.split_once('=').ok_or_else(wrong)?;
        if key.is_empty() || key.contains(|c: char| c.is_whitespace() || c == '"') {
            return Err(wrong());
        }
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted).ok_or_else(wrong)?,
            None => {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        if !after.is_empty() && !after.starts_with(char::is_whitespace) {
            return Err(wrong());
        }
        if pairs.insert(key.to_owned(), value).is_some() {
            return Err(format!("`{key}` stands there twice"));
        }
        rest = after.trim_start();
    }
    Ok(pairs)
}

/// The text up to the closing quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn what_is_printed_reads_back() {
        for (of, text) in [
            (&[][..], ""),
            (&[("town", "danghu"), ("vendor", "a=b,c")], "town=danghu vendor=a=b,c"),
            (&[("note", "two words"), ("town", "x")], "note=\"two words\" town=x"),
            (&[("note", "a vendor=b")], "note=\"a vendor=b\""),
            (&[("note", "6\" \\ x"), ("void", "")], "note=\"6\\\" \\\\ x\" void=\"\""),
            (&[("note", "四\u{3000}五")], "note=\"四\u{3000}五\""),
        ] {
            let of = pairs(of);
            assert_eq!(pairs_text(&of), text);
            assert_eq!(parse_pairs(text), Ok(of), "{text}");
        }
    }

    #[test]
    fn what_is_no_list_of_pairs_is_refused() {
        for text in [
            "town",
            "town=x two words",
            "=x",
            "a=\"x",
            "a=\"x\"y",
            "a=1 a=2",
            "two words=x",
        ] {
            assert!(parse_pairs(text).is_err(), "{text}");
        }
    }
}
