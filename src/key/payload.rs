//! A payload in what a client printed: the JSON of an API, or what `openstack secret get --payload` writes by `-f`.
//!
//! | format | looks like |
//! |---|---|
//! | json | `{"Payload": "VALUE"}`, and of old `[{"Field": "Payload", "Value": "VALUE"}]` |
//! | table | `\| Payload \| VALUE \|`, where a long value goes on in rows without a field |
//! | shell | `payload="VALUE"` |
//! | yaml | `Payload: VALUE` |
//! | value | `VALUE` alone |
//!
//! A secret of bytes is printed as Python's literal for it, `b'\x9f…'`, in all of them. Sources: cliff's
//! `formatters/` (json_format.py, table.py, shell.py, value.py, yaml_format.py) and python-barbicanclient's
//! `secret_get`. serde_json only checks that it is JSON: it would leave the values in memory.

use super::fill::Fill;
use super::rule::Step;
use crate::error::Result;
use crate::secret::SecretBytes;

/// The payload in the text, and what it was in.
pub(super) fn find(text: &str) -> Result<Option<(Step, SecretBytes)>> {
    if serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok() {
        return Ok(json(text)?.map(|value| (Step::Json, value)));
    }
    if let Some(value) = table(text)? {
        return Ok(Some((Step::Table, value)));
    }
    Ok(text.lines().find_map(assignment).map(SecretBytes::copy_of).transpose()?.map(|value| (Step::Assignment, value)))
}

fn is_payload(name: &str) -> bool {
    name.eq_ignore_ascii_case("payload")
}

/// The string that is the value of a payload, or the whole text.
fn json(text: &str) -> Result<Option<SecretBytes>> {
    let mut strings = Strings { rest: text };
    // A string of a list of fields tells what the next `"Value"` is.
    let (mut name, mut field) = (None, None);
    while let Some(string) = strings.next() {
        if strings.rest.trim_start().starts_with(':') {
            name = Some(string);
            continue;
        }
        let of_field = name.is_some_and(|n| n.eq_ignore_ascii_case("value")) && field.is_some_and(is_payload);
        let alone = name.is_none() && text.trim_start().starts_with('"');
        if name.is_some_and(is_payload) || of_field || alone {
            return unescape(string, Escapes::Json).map(Some);
        }
        field = Some(string).filter(|_| name.is_some_and(|n| n.eq_ignore_ascii_case("field"))).or(field);
        name = None;
    }
    Ok(None)
}

/// The strings of a JSON text, keys too, without their quotes and as they are written.
struct Strings<'a> {
    rest: &'a str,
}

impl<'a> Strings<'a> {
    fn next(&mut self) -> Option<&'a str> {
        let (_, string) = self.rest.split_once('"')?;
        let mut escaped = false;
        let end = string.bytes().position(|b| {
            let ends = b == b'"' && !escaped;
            escaped = b == b'\\' && !escaped;
            ends
        })?;
        self.rest = string.get(end..)?.strip_prefix('"')?;
        string.get(..end)
    }
}

/// The value of the row `Payload`, with the rows that it goes on in.
fn table(text: &str) -> Result<Option<SecretBytes>> {
    let mut value: Option<Fill> = None;
    for line in text.lines() {
        let row = line.trim().strip_prefix('|').and_then(|row| row.strip_suffix('|'));
        let Some((field, cell)) = row.and_then(|row| row.split_once('|')) else { continue };
        match &mut value {
            None if is_payload(field.trim()) => {
                let mut filled = Fill::new()?;
                filled.push(cell.trim().as_bytes())?;
                value = Some(filled);
            }
            Some(value) if field.trim().is_empty() => value.push(cell.trim().as_bytes())?,
            Some(_) => break,
            None => {}
        }
    }
    Ok(value.map(Fill::finish))
}

/// The value of a line `payload="VALUE"` or `Payload: VALUE`.
fn assignment(line: &str) -> Option<&[u8]> {
    let (name, value) = line.split_once(['=', ':'])?;
    let name = name.trim().trim_start_matches("export ");
    // A prefix may be asked for.
    let is_payload = is_payload(name) || name.to_ascii_lowercase().ends_with("_payload");
    let value = value.trim();
    let quoted = |q: char| value.strip_prefix(q).and_then(|v| v.strip_suffix(q));
    is_payload.then(|| quoted('"').or_else(|| quoted('\'')).unwrap_or(value).as_bytes())
}

/// The bytes that a literal of Python stands for, `b'…'` or `b"…"`; `None` for what is none.
pub(super) fn python_bytes(text: &str) -> Result<Option<SecretBytes>> {
    let inner = |q: char| text.strip_prefix('b')?.strip_prefix(q)?.strip_suffix(q);
    match inner('\'').or_else(|| inner('"')) {
        Some(literal) => unescape(literal, Escapes::Python).map(Some),
        None => Ok(None),
    }
}

/// What a backslash means.
#[derive(Clone, Copy)]
enum Escapes {
    /// RFC 8259, section 7.
    Json,
    /// Python's reference, "String and Bytes literals": `\xHH` is a byte.
    Python,
}

fn unescape(text: &str, escapes: Escapes) -> Result<SecretBytes> {
    let mut out = Fill::new()?;
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push(&rest.as_bytes()[..at])?;
        let mut chars = rest[at..].chars();
        let escaped = (chars.next(), chars.next()).1;
        rest = chars.as_str();
        match (escaped, escapes) {
            (Some('n'), _) => out.push(b"\n")?,
            (Some('r'), _) => out.push(b"\r")?,
            (Some('t'), _) => out.push(b"\t")?,
            (Some('b'), _) => out.push(b"\x08")?,
            (Some('f'), _) => out.push(b"\x0c")?,
            (Some('x'), Escapes::Python) => {
                let byte = rest.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
                out.push(byte.as_slice())?;
                rest = rest.get(2..).unwrap_or_default();
            }
            (Some('u'), Escapes::Json) => {
                let (c, len) = unicode(rest);
                out.push_char(c)?;
                rest = rest.get(len..).unwrap_or_default();
            }
            (Some(c), _) => out.push_char(c)?,
            (None, _) => {}
        }
    }
    out.push(rest.as_bytes())?;
    Ok(out.finish())
}

/// The letter of `\u`, and how much behind the `u` is of it: a pair of surrogates is one letter.
fn unicode(rest: &str) -> (char, usize) {
    let unit = |at: usize| rest.get(at..)?.get(..4).and_then(|hex| u16::from_str_radix(hex, 16).ok());
    let pair = rest.get(4..6).filter(|u| *u == "\\u").and_then(|_| unit(6));
    let Some(first) = unit(0) else { return (char::REPLACEMENT_CHARACTER, 4) };
    let one = char::decode_utf16([first]).next().and_then(std::result::Result::ok);
    let two = pair.and_then(|second| char::decode_utf16([first, second]).next()?.ok());
    match (one, two) {
        (Some(c), _) => (c, 4),
        (None, Some(c)) => (c, 10),
        (None, None) => (char::REPLACEMENT_CHARACTER, 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<(Step, Vec<u8>)> {
        find(text).unwrap().map(|(step, value)| (step, value.expose().to_vec()))
    }

    #[test]
    fn each_format_of_the_client_gives_the_payload() {
        let table = "+---------+-------+\n| Field   | Value |\n+---------+-------+\n| Payload | s3cr  |\n|         | et    |\n+---------+-------+\n";
        for (text, step) in [
            (r#"{"Payload": "s3cret"}"#, Step::Json),
            (r#"{"name": "x:y", "payload": "s3\u0063ret", "status": 3}"#, Step::Json),
            (r#"[{"Field": "Name", "Value": "n"}, {"Field": "Payload", "Value": "s3cret"}]"#, Step::Json),
            (r#"{"secret": {"payload_content_type": "text/plain", "payload": "s3cret"}}"#, Step::Json),
            (r#" "s3cret" "#, Step::Json),
            (table, Step::Table),
            ("payload=\"s3cret\"\n", Step::Assignment),
            ("os_payload='s3cret'\r\n", Step::Assignment),
            ("Payload: s3cret\n", Step::Assignment),
        ] {
            assert_eq!(found(text), Some((step, b"s3cret".to_vec())), "{text}");
        }
        for text in [
            "s3cret",
            "{}",
            "{\"a\": \"Payload\"}",
            "12",
            "a=b",
            "| a | b |",
            "{\"payload\": 3}",
            "\"",
            "{\"payload\": \"x",
        ] {
            assert_eq!(found(text), None, "{text}");
        }
    }

    #[test]
    fn escapes_become_what_they_stand_for() {
        assert_eq!(found(r#"{"payload": "\"\/\\\n\u00fc\ud83d\ude00"}"#).unwrap().1, "\"/\\\nü😀".as_bytes());
        assert_eq!(found(r#"{"payload": "\ud83d"}"#).unwrap().1, "\u{fffd}".as_bytes());
        let bytes = |text: &str| python_bytes(text).unwrap().map(|b| b.expose().to_vec());
        assert_eq!(bytes(r"b'\x00\x9fA\n\\\''").unwrap(), b"\x00\x9fA\n\\'");
        assert_eq!(bytes("b\"it's\"").unwrap(), b"it's");
        assert_eq!(bytes(r"b'\x9").unwrap_or_default(), b"");
        assert!(bytes("'x'").is_none() && bytes("b").is_none() && bytes("b'").is_none());
    }
}
