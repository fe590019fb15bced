//! LVM2's configuration text, in which it keeps its metadata (LVM2's `libdm/libdm-config.c`).
//!
//! ```text
//! text    = entry* NUL?
//! entry   = name "=" value | name "{" entry* "}"
//! value   = scalar | "[" (scalar ("," scalar)* ","?)? "]"
//! scalar  = integer | "\"" characters "\""
//! name    = [A-Za-z0-9_+.-]+
//! ```
//!
//! `#` begins a comment to the end of the line. In a string `\"` and `\\` stand for the second of the two. Names are
//! what LVM allows for volumes, and nothing else; no name comes twice in a section. The parser keeps its own stack, so
//! that no nesting exhausts the thread's.

use crate::error::{Error, Result, escape};
use crate::limits::{LVM_TEXT_DEPTH_MAX, LVM_TEXT_VALUES_MAX};

/// What stands behind a name.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    Int(i64),
    Str(String),
    Array(Vec<Value>),
    Section(Box<Section>),
}

impl Value {
    fn kind(&self) -> &'static str {
        match self {
            Self::Int(_) => "a number",
            Self::Str(_) => "a string",
            Self::Array(_) => "an array",
            Self::Section(_) => "a section",
        }
    }
}

/// Names and what stands behind them, in the order of the text.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    /// Its own name; that of the whole text is empty.
    pub(super) name: String,
    line: usize,
    entries: Vec<(String, Value)>,
}

impl Section {
    fn fault(&self, message: String) -> Error {
        let place = if self.name.is_empty() {
            "the metadata".to_owned()
        } else {
            format!("section {} in line {} of the metadata", escape(&self.name), self.line)
        };
        Error::corrupt("lvm.metadata", format!("{place} {message}"))
    }

    /// What stands behind `name`, where anything does.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.entries.iter().find(|(n, _)| n == name).map(|(_, value)| value)
    }

    /// Whether anything stands behind `name`.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    fn required(&self, name: &str) -> Result<&Value> {
        self.get(name).ok_or_else(|| self.fault(format!("has no \"{name}\"")))
    }

    fn wrong(&self, name: &str, found: &Value, wanted: &str) -> Error {
        self.fault(format!("has {} for \"{name}\", where {wanted} is wanted", found.kind()))
    }

    /// The sections in this one.
    pub(super) fn sections(&self) -> impl Iterator<Item = &Section> {
        self.entries.iter().filter_map(|(_, value)| match value {
            Value::Section(section) => Some(&**section),
            _ => None,
        })
    }

    pub(super) fn section(&self, name: &str) -> Result<&Section> {
        match self.required(name)? {
            Value::Section(section) => Ok(section),
            other => Err(self.wrong(name, other, "a section")),
        }
    }

    /// The section `name`, where there is one.
    pub(super) fn section_if_any(&self, name: &str) -> Result<Option<&Section>> {
        if self.has(name) { self.section(name).map(Some) } else { Ok(None) }
    }

    pub(super) fn number(&self, name: &str) -> Result<u64> {
        match self.required(name)? {
            Value::Int(n) => u64::try_from(*n).map_err(|_| self.fault(format!("has {n} for \"{name}\", below 0"))),
            other => Err(self.wrong(name, other, "a number")),
        }
    }

    /// The number `name`, where there is one.
    pub(super) fn number_if_any(&self, name: &str) -> Result<Option<u64>> {
        if self.has(name) { self.number(name).map(Some) } else { Ok(None) }
    }

    pub(super) fn string(&self, name: &str) -> Result<&str> {
        match self.required(name)? {
            Value::Str(text) => Ok(text),
            other => Err(self.wrong(name, other, "a string")),
        }
    }

    /// The string `name`, where there is one.
    pub(super) fn string_if_any(&self, name: &str) -> Result<Option<&str>> {
        if self.has(name) { self.string(name).map(Some) } else { Ok(None) }
    }

    pub(super) fn array(&self, name: &str) -> Result<&[Value]> {
        match self.required(name)? {
            Value::Array(values) => Ok(values),
            other => Err(self.wrong(name, other, "an array")),
        }
    }

    /// The strings of the array `name`; none where there is no such name. LVM writes a single one without brackets, too.
    pub(super) fn strings(&self, name: &str) -> Result<Vec<String>> {
        let values = match self.get(name) {
            None => return Ok(Vec::new()),
            Some(Value::Array(values)) => values.iter().collect(),
            Some(one) => vec![one],
        };
        let text = |value: &Value| match value {
            Value::Str(text) => Ok(text.clone()),
            other => Err(self.wrong(name, other, "an array of strings")),
        };
        values.into_iter().map(text).collect()
    }
}

/// The whole text as a section without a name.
///
/// # Errors
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) with the line and the byte where the text breaks its grammar;
/// [`ErrorKind::LimitExceeded`](crate::ErrorKind::LimitExceeded) where it nests too deep or has too many values.
pub(super) fn parse(text: &[u8]) -> Result<Section> {
    let text = text.strip_suffix(b"\0").unwrap_or(text);
    let mut parser = Parser { text, at: 0, line: 1, values: 0 };
    let mut open: Vec<Section> = Vec::new();
    let mut section = Section::default();
    loop {
        parser.skip_blank();
        if parser.at == text.len() {
            if open.is_empty() {
                parser.check_names(&section)?;
                return Ok(section);
            }
            return Err(parser.fault(&format!("the text ends in section {}", escape(&section.name))));
        }
        if parser.take(b'}') {
            let Some(outer) = open.pop() else {
                return Err(parser.fault("there is a \"}\" without a section"));
            };
            parser.check_names(&section)?;
            let inner = std::mem::replace(&mut section, outer);
            section.entries.push((inner.name.clone(), Value::Section(Box::new(inner))));
            continue;
        }
        let name = parser.name()?;
        parser.count()?;
        parser.skip_blank();
        if parser.take(b'{') {
            if open.len() >= LVM_TEXT_DEPTH_MAX {
                let message = format!("line {}: sections nest deeper than {LVM_TEXT_DEPTH_MAX}", parser.line);
                return Err(Error::limit("lvm.text.depth", message));
            }
            let inner = Section { name, line: parser.line, entries: Vec::new() };
            open.push(std::mem::replace(&mut section, inner));
        } else if parser.take(b'=') {
            parser.skip_blank();
            let value = parser.value()?;
            section.entries.push((name, value));
        } else {
            return Err(parser.fault(&format!("\"=\" or \"{{\" is wanted behind \"{}\"", escape(&name))));
        }
    }
}

struct Parser<'a> {
    text: &'a [u8],
    at: usize,
    line: usize,
    values: usize,
}

impl Parser<'_> {
    fn fault(&self, message: &str) -> Error {
        let (line, at) = (self.line, self.at);
        Error::corrupt("lvm.text", format!("line {line}, byte {at} of the metadata: {message}"))
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_there = self.peek() == Some(byte);
        if is_there {
            self.at += 1;
        }
        is_there
    }

    /// Every name and every value of an array takes memory that is a multiple of its text.
    fn count(&mut self) -> Result<()> {
        self.values += 1;
        if self.values > LVM_TEXT_VALUES_MAX {
            let message = format!("line {}: there are more than {LVM_TEXT_VALUES_MAX} values", self.line);
            return Err(Error::limit("lvm.text.values", message));
        }
        Ok(())
    }

    /// LVM takes the first of two that have the same name; whoever put the second there meant something else.
    fn check_names(&self, section: &Section) -> Result<()> {
        let mut names: Vec<&str> = section.entries.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_unstable();
        match names.windows(2).find(|pair| pair[0] == pair[1]) {
            Some(pair) => {
                Err(self.fault(&format!("\"{}\" comes twice in the section that ends here", escape(pair[0]))))
            }
            None => Ok(()),
        }
    }

    fn skip_blank(&mut self) {
        while let Some(byte) = self.peek() {
            match byte {
                b'\n' => self.line += 1,
                b' ' | b'\t' | b'\r' => (),
                b'#' => {
                    let rest = &self.text[self.at..];
                    self.at += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
                    continue;
                }
                _ => return,
            }
            self.at += 1;
        }
    }

    fn name(&mut self) -> Result<String> {
        let allowed = |b: &&u8| b.is_ascii_alphanumeric() || b"_+.-".contains(b);
        let bytes: Vec<u8> = self.text[self.at..].iter().take_while(allowed).copied().collect();
        if bytes.is_empty() {
            return Err(self.fault("a name is wanted"));
        }
        self.at += bytes.len();
        String::from_utf8(bytes).map_err(|_| self.fault("a name is wanted"))
    }

    fn value(&mut self) -> Result<Value> {
        if !self.take(b'[') {
            return self.scalar();
        }
        let mut values = Vec::new();
        loop {
            self.skip_blank();
            if self.take(b']') {
                return Ok(Value::Array(values));
            }
            self.count()?;
            values.push(self.scalar()?);
            self.skip_blank();
            if !self.take(b',') && self.peek() != Some(b']') {
                return Err(self.fault("\",\" or \"]\" is wanted in an array"));
            }
        }
    }

    fn scalar(&mut self) -> Result<Value> {
        if self.take(b'"') { self.string().map(Value::Str) } else { self.integer().map(Value::Int) }
    }

    fn integer(&mut self) -> Result<i64> {
        let rest = &self.text[self.at..];
        let sign = usize::from(rest.first() == Some(&b'-'));
        let digits = rest[sign..].iter().take_while(|b| b.is_ascii_digit()).count();
        let end = sign + digits;
        // What goes on behind the digits is no number that LVM writes: a fraction, or a name without quotes.
        let goes_on = rest.get(end).is_some_and(|b| b.is_ascii_alphanumeric() || b"_.+-".contains(b));
        let number = std::str::from_utf8(&rest[..end]).ok().filter(|_| digits > 0 && !goes_on);
        let number = number.ok_or_else(|| self.fault("a number, a string or an array is wanted"))?;
        let parsed = number.parse().map_err(|_| self.fault("a number is too large"))?;
        self.at += end;
        Ok(parsed)
    }

    /// The rest of a string, whose opening quote is taken. What is not UTF-8 in it, of a description say, is replaced.
    fn string(&mut self) -> Result<String> {
        let mut bytes = Vec::new();
        loop {
            let Some(byte) = self.peek() else { return Err(self.fault("the text ends in a string")) };
            self.at += 1;
            match (byte, self.peek()) {
                (b'"', _) => return Ok(String::from_utf8_lossy(&bytes).into_owned()),
                (b'\\', Some(next @ (b'"' | b'\\'))) => {
                    bytes.push(next);
                    self.at += 1;
                }
                _ => {
                    self.line += usize::from(byte == b'\n');
                    bytes.push(byte);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn names_values_and_sections_are_read() {
        let text = b"vg {\n# a comment\nid = \"a\\\"b\\\\c\\d\"\nn = -7 # more\nlist = [\n\"pv0\", 0,\n]\nnone = []\nin { x = 1 }\n}\nv=1\0";
        let top = parse(text).unwrap();
        let vg = top.section("vg").unwrap();
        assert_eq!(vg.string("id").unwrap(), "a\"b\\c\\d");
        assert_eq!(vg.get("n"), Some(&Value::Int(-7)));
        assert_eq!(vg.array("list").unwrap(), [Value::Str("pv0".into()), Value::Int(0)]);
        assert_eq!(vg.strings("none").unwrap(), Vec::<String>::new());
        assert_eq!(vg.section("in").unwrap().number("x").unwrap(), 1);
        assert_eq!(top.number("v").unwrap(), 1);
        assert!(parse(b"").unwrap().sections().next().is_none());
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        let cases: &[(&[u8], &str)] = &[
            (b"a = 1\na = 2", "line 2, byte 11 of the metadata: \"a\" comes twice in the section that ends here"),
            (b"a {\n", "line 2, byte 4 of the metadata: the text ends in section a"),
            (b"}", "line 1, byte 1 of the metadata: there is a \"}\" without a section"),
            (b"a 1", "line 1, byte 2 of the metadata: \"=\" or \"{\" is wanted behind \"a\""),
            (b"a = \"x\n", "line 2, byte 7 of the metadata: the text ends in a string"),
            (b"a = 1.5", "line 1, byte 4 of the metadata: a number, a string or an array is wanted"),
            (b"a = [1 2]", "line 1, byte 7 of the metadata: \",\" or \"]\" is wanted in an array"),
            (b"a = [[1]]", "line 1, byte 5 of the metadata: a number, a string or an array is wanted"),
            (b"a = 9223372036854775808", "line 1, byte 4 of the metadata: a number is too large"),
            (b"\x1b = 1", "line 1, byte 0 of the metadata: a name is wanted"),
            (b"a = 1\0b = 2", "line 1, byte 5 of the metadata: a name is wanted"),
        ];
        for (text, message) in cases {
            let e = parse(text).unwrap_err();
            assert_eq!((e.kind(), e.rule(), e.message()), (ErrorKind::Corrupt, "lvm.text", *message));
        }
    }

    #[test]
    fn a_value_of_another_kind_is_named() {
        let top = parse(b"s {\nn = -1\nt = \"\"\nl = [1]\n}").unwrap();
        let s = top.section("s").unwrap();
        let message = |e: Error| e.message().to_owned();
        assert_eq!(
            message(s.number("n").unwrap_err()),
            "section s in line 1 of the metadata has -1 for \"n\", below 0"
        );
        let wanted = "section s in line 1 of the metadata has a string for \"t\", where a number is wanted";
        assert_eq!(message(s.number("t").unwrap_err()), wanted);
        assert_eq!(message(top.section("x").unwrap_err()), "the metadata has no \"x\"");
        assert!(s.strings("l").unwrap_err().message().contains("an array of strings"));
    }

    #[test]
    fn depth_and_number_have_their_limits() {
        let deep = |n: usize| parse("a {".repeat(n).as_bytes()).unwrap_err();
        assert_eq!(deep(LVM_TEXT_DEPTH_MAX).kind(), ErrorKind::Corrupt);
        assert_eq!(
            (deep(LVM_TEXT_DEPTH_MAX + 1).kind(), deep(1_000_000).rule()),
            (ErrorKind::LimitExceeded, "lvm.text.depth")
        );
        let many = format!("a=[{}]", "0,".repeat(LVM_TEXT_VALUES_MAX));
        let e = parse(many.as_bytes()).unwrap_err();
        assert_eq!((e.kind(), e.rule()), (ErrorKind::LimitExceeded, "lvm.text.values"));
    }
}
