//! Reads Rust source as text, well enough for the rules of `tidy.rs`: what is code, what is a test, who names whom.
//! Never here: a rule. Invariant: blanking keeps every line where it was, so that line numbers stay true.

use std::{
    fs,
    path::{Path, PathBuf},
};

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("node/ lies in the workspace")
        .to_owned()
}

/// A source file: its text, the same with comments and the insides of literals blanked, and where its tests are.
pub(crate) struct Source {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) code: String,
    test_lines: Vec<(usize, usize)>,
}

impl Source {
    pub(crate) fn new(path: String, text: String) -> Self {
        let code = blank(&text);
        let test_lines = test_modules(&code);
        Self {
            path,
            text,
            code,
            test_lines,
        }
    }

    /// The module of the node that the file belongs to; none for lib.rs, main.rs and other crates.
    pub(crate) fn module(&self) -> Option<String> {
        let inside = self.path.strip_prefix("node/src/")?;
        let first = inside.split('/').next()?.trim_end_matches(".rs");
        (!matches!(first, "lib" | "main")).then(|| first.to_owned())
    }

    pub(crate) fn stem(&self) -> String {
        Path::new(&self.path)
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    /// How many `super` lead from this file to the root of its crate.
    fn depth(&self) -> usize {
        let inside = self.path.split("/src/").nth(1).unwrap_or_default();
        inside.trim_end_matches("/mod.rs").split('/').count()
    }

    pub(crate) fn is_test(&self, line: usize) -> bool {
        self.path.contains("/tests/")
            || self.path.ends_with("/tests.rs")
            || self.test_lines.iter().any(|(from, to)| (*from..=*to).contains(&line))
    }

    pub(crate) fn lines_naming(&self, name: &str) -> Vec<usize> {
        find(&self.code, name)
    }

    pub(crate) fn lines_with(&self, text: &str) -> Vec<usize> {
        let lines = self.code.lines().enumerate();
        lines
            .filter(|(_, line)| line.contains(text))
            .map(|(number, _)| number + 1)
            .collect()
    }
}

pub(crate) fn node_sources() -> Vec<Source> {
    read_all(&root().join("node/src"), &["rs"])
}

/// Every Rust file of the workspace, tests and examples too.
pub(crate) fn sources() -> Vec<Source> {
    let mut all = Vec::new();
    for part in ["proto", "node", "client", "tools", "bench"] {
        all.extend(read_all(&root().join(part), &["rs"]));
    }
    assert!(all.len() > 10, "few source files found under {}", root().display());
    all
}

/// Files below `folder` whose names end so, without this one, build outputs, data and hidden folders.
pub(crate) fn read_all(folder: &Path, endings: &[&str]) -> Vec<Source> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.expect("directory entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let hidden = name.starts_with('.') && name != ".ci" && name != ".cargo";
            if path.is_dir() {
                if !hidden && !matches!(name.as_str(), "target" | "data") {
                    folders.push(path);
                }
            } else if endings.contains(&name.rsplit('.').next().unwrap_or_default()) && name != "tidy.rs" {
                let shown = path
                    .strip_prefix(root())
                    .unwrap_or(&path)
                    .to_string_lossy()
                    .into_owned();
                let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{shown}: {e}"));
                found.push(Source::new(shown, text));
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Numbers of the lines that hold `name` as whole words.
pub(crate) fn find(text: &str, name: &str) -> Vec<usize> {
    let lines = text.lines().enumerate();
    let holding = lines.filter(|(_, line)| line.match_indices(name).any(|(at, _)| whole_word(line, at, name.len())));
    holding.map(|(number, _)| number + 1).collect()
}

fn whole_word(line: &str, at: usize, length: usize) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    !line[..at].ends_with(word) && !line[at + length..].starts_with(word)
}

pub(crate) fn starts_a_path(line: &str, home: &str) -> bool {
    let before = |at: usize| line[..at].chars().next_back();
    line.match_indices(home)
        .any(|(at, _)| before(at).is_none_or(|c| !c.is_alphanumeric() && !"._-}~*".contains(c)))
}

/// Line and package of every entry in a table of dependencies.
pub(crate) fn dependencies(manifest: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut inside = false;
    for (number, line) in manifest.lines().enumerate() {
        let header = line.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let package = match header {
            Some(table) => {
                inside = table.ends_with("dependencies");
                table.split_once("dependencies.").map(|(_, package)| package)
            }
            None if inside => line.split(['=', '.', ' ']).next().filter(|name| !name.is_empty()),
            None => None,
        };
        found.extend(package.map(|package| (number + 1, package.to_owned())));
    }
    found
}

/// Modules of the crate that production code names: after `crate::`, or after as many `super::` as lead to the root.
pub(crate) fn uses(file: &Source) -> Vec<(usize, String)> {
    let to_root = "super::".repeat(file.depth());
    let mut found = Vec::new();
    for prefix in ["crate::", &to_root] {
        for (at, _) in file.code.match_indices(prefix) {
            let line = file.code[..at].matches('\n').count() + 1;
            let begins = !file.code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':');
            if begins && !file.is_test(line) {
                let names = heads(&file.code[at + prefix.len()..]);
                found.extend(names.into_iter().map(|name| (line, name)));
            }
        }
    }
    found.sort_by_key(|(line, _)| *line);
    found
}

/// First name of a path, or of each path in `{…}`.
fn heads(rest: &str) -> Vec<String> {
    let name = |text: &str| -> String {
        text.trim()
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect()
    };
    let Some(group) = rest.strip_prefix('{') else {
        return vec![name(rest)];
    };
    let (mut depth, mut start, mut names) = (0usize, 0usize, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                names.push(name(&group[start..at]));
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    names
}

/// First and last line of each `#[cfg(test)] … { … }`.
fn test_modules(code: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, marker) in code.match_indices("#[cfg(test)]") {
        let rest = &code[at + marker.len()..];
        let (Some(open), semicolon) = (rest.find('{'), rest.find(';')) else {
            continue;
        };
        if semicolon.is_none_or(|semicolon| open < semicolon) {
            let first = code[..at].matches('\n').count() + 1;
            found.push((first, first + block_lines(&code[at..])));
        }
    }
    found
}

/// Name, line and length in lines of each function with a body.
pub(crate) fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let name: String = code[at + 3..]
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        let body = code[at..].find(['{', ';']);
        let declared = body.is_some_and(|body| code[at + body..].starts_with('{'));
        if !name.is_empty() && declared && !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
            let line = code[..at].matches('\n').count() + 1;
            found.push((name, line, block_lines(&code[at..]) + 1));
        }
    }
    found
}

/// Line breaks from the start of `code` to the brace that closes its first block.
fn block_lines(code: &str) -> usize {
    let (mut depth, mut lines) = (0usize, 0usize);
    for c in code.chars() {
        match c {
            '\n' => lines += 1,
            '{' => depth += 1,
            '}' if depth == 1 => return lines,
            '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    lines
}

/// Replaces comments and the insides of string and character literals by spaces; line breaks stay.
pub(crate) fn blank(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        // How much to keep, to blank, and to keep again.
        let (keep, hide, close) = if rest.starts_with("//") {
            (0, rest.find('\n').unwrap_or(rest.len()), 0)
        } else if rest.starts_with("/*") {
            (0, block_comment(rest), 0)
        } else if let Some(hashes) = raw_string(text, at) {
            let open = hashes + 2;
            let end = format!("\"{}", "#".repeat(hashes));
            let body = rest[open..].find(&end).unwrap_or(rest.len() - open);
            (open, body, end.len())
        } else if let Some(body) = rest.strip_prefix('"') {
            (1, quoted(body, '"'), 1)
        } else if is_char(rest) {
            (1, quoted(&rest[1..], '\''), 1)
        } else {
            (rest.chars().next().map_or(1, char::len_utf8), 0, 0)
        };
        let end = (at + keep + hide + close).min(text.len());
        code.push_str(&rest[..keep]);
        code.extend(
            rest[keep..keep + hide]
                .chars()
                .map(|c| if c == '\n' { '\n' } else { ' ' }),
        );
        code.push_str(&text[at + keep + hide..end]);
        at = end;
    }
    code
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0usize);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        let step = match here {
            [b'/', b'*', ..] => {
                depth += 1;
                2
            }
            [b'*', b'/', ..] => {
                depth -= 1;
                2
            }
            _ => 1,
        };
        at += step;
        if depth == 0 {
            break;
        }
    }
    at
}

/// Number of hashes where a raw string starts at `at`.
fn raw_string(text: &str, at: usize) -> Option<usize> {
    let rest = text[at..].strip_prefix('r')?;
    let before = text[..at].strip_suffix('b').unwrap_or(&text[..at]);
    if before.ends_with(|c: char| c.is_alphanumeric() || c == '_') {
        return None;
    }
    let hashes = rest.len() - rest.trim_start_matches('#').len();
    rest[hashes..].starts_with('"').then_some(hashes)
}

/// Length of a literal up to its closing quote.
fn quoted(body: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            c if c == quote => return at,
            _ => {}
        }
    }
    body.len()
}

/// A character literal, not a lifetime.
fn is_char(rest: &str) -> bool {
    let mut chars = rest.chars();
    if chars.next() != Some('\'') {
        return false;
    }
    let (first, second) = (chars.next(), chars.next());
    first == Some('\\') || second == Some('\'')
}
