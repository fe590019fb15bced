//! The JSON area of a LUKS2 header: from bytes to values, with caps, and typed access with a path for each error.

use serde_json::{Map, Value};

use crate::error::{Error, Result, escape};
use crate::limits::{JSON_DEPTH_MAX, JSON_VALUES_MAX};

/// Takes the JSON text out of its area and parses it.
///
/// The rules are cryptsetup's (luks2_disk_metadata.c): the first byte is `{`, at least one NUL follows the text, and
/// nothing but NULs follows it to the end.
pub fn parse_area(area: &[u8]) -> Result<Value> {
    let rule = |message: String| Error::corrupt("json", message);
    if area.first() != Some(&b'{') {
        return Err(rule("the area does not start with \"{\"".into()).with_rule("json.start"));
    }
    let Some(end) = area.iter().position(|b| *b == 0) else {
        return Err(rule("no NUL follows the text".into()).with_rule("json.end"));
    };
    let (text, rest) = area.split_at(end);
    if let Some(at) = rest.iter().position(|b| *b != 0) {
        let message = format!(
            "found 0x{:02x} at byte {} of the area; only NULs are allowed after the text",
            rest[at],
            end.saturating_add(at)
        );
        return Err(rule(message).with_rule("json.end"));
    }
    check_size(text)?;
    // json-c takes strings as bytes. A label or token in another encoding must not keep an image from being opened.
    let text = String::from_utf8_lossy(text);
    let mut values = serde_json::Deserializer::from_str(&text).into_iter::<Value>();
    let value = match values.next() {
        Some(Ok(value)) => value,
        Some(Err(e)) => return Err(rule(format!("not valid JSON: {}", escape(&e.to_string())))),
        None => return Err(rule("the area is empty".into())),
    };
    // json-c passes over white space behind the closing brace, so cryptsetup accepts it.
    if !text[values.byte_offset()..].trim_ascii_start().is_empty() {
        let message = format!("found text after the closing brace, at byte {} of the area", values.byte_offset());
        return Err(rule(message).with_rule("json.end"));
    }
    Ok(value)
}

/// Caps nesting and the number of values before anything is allocated for them.
fn check_size(text: &[u8]) -> Result<()> {
    let (mut depth, mut values, mut in_string, mut escaped) = (0usize, 1usize, false, false);
    for b in text {
        if in_string {
            match b {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => {}
            }
            continue;
        }
        // json-c counts a value in the innermost container as one level more.
        if depth >= JSON_DEPTH_MAX && !matches!(b, b']' | b'}') && !b.is_ascii_whitespace() {
            return Err(Error::corrupt("json.depth", format!("nested deeper than {JSON_DEPTH_MAX} levels")));
        }
        match b {
            b'"' => in_string = true,
            b'{' | b'[' => {
                depth = depth.saturating_add(1);
                values = values.saturating_add(1);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            b',' => values = values.saturating_add(1),
            _ => {}
        }
        if values > JSON_VALUES_MAX {
            return Err(Error::limit(
                "json.values",
                format!("more than {JSON_VALUES_MAX} values; no LUKS2 header needs that many"),
            ));
        }
    }
    Ok(())
}

/// A JSON object with its path, for errors such as `segments.0.offset: …`.
pub struct Object<'a> {
    pub map: &'a Map<String, Value>,
    path: String,
}

fn kind(value: Option<&Value>) -> String {
    match value {
        None => "nothing".into(),
        Some(Value::Null) => "null".into(),
        Some(Value::Bool(b)) => format!("the boolean {b}"),
        Some(Value::Number(n)) => format!("the number {n}"),
        Some(Value::String(s)) => format!("the string \"{}\"", escape(s)),
        Some(Value::Array(_)) => "an array".into(),
        Some(Value::Object(_)) => "an object".into(),
    }
}

impl<'a> Object<'a> {
    /// The top level.
    pub fn root(value: &'a Value) -> Result<Self> {
        match value {
            Value::Object(map) => Ok(Self { map, path: String::new() }),
            other => Err(Error::corrupt("json", format!("found {}; an object is wanted", kind(Some(other))))),
        }
    }

    /// The path of a field.
    pub fn field(&self, key: &str) -> String {
        match self.path.is_empty() {
            true => escape(key),
            false => format!("{}.{}", self.path, escape(key)),
        }
    }

    /// An error about a field.
    pub fn error(&self, key: &str, message: impl Into<String>) -> Error {
        Error::corrupt(self.field(key), message)
    }

    fn wrong(&self, key: &str, wanted: &str) -> Error {
        self.error(key, format!("found {}; {wanted} is wanted", kind(self.map.get(key))))
    }

    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// A field that must be an object.
    pub fn object(&self, key: &str) -> Result<Object<'a>> {
        match self.map.get(key) {
            Some(Value::Object(map)) => Ok(Object { map, path: self.field(key) }),
            _ => Err(self.wrong(key, "an object")),
        }
    }

    /// A field that must be a string, and not an empty one.
    pub fn string(&self, key: &str) -> Result<&'a str> {
        let text = self.map.get(key).and_then(Value::as_str).filter(|s| !s.is_empty());
        text.ok_or_else(|| self.wrong(key, "a string that is not empty"))
    }

    /// A field that must be a string of decimal digits that fit 64 bits.
    pub fn decimal(&self, key: &str) -> Result<u64> {
        let text = self.string(key)?;
        if !text.bytes().all(|b| b.is_ascii_digit()) {
            return Err(self.wrong(key, "a string of decimal digits"));
        }
        text.parse().map_err(|_| self.wrong(key, "a number below 2^64"))
    }

    /// A field that must be a JSON integer, not below zero.
    pub fn integer(&self, key: &str) -> Result<u64> {
        self.map.get(key).and_then(Value::as_u64).ok_or_else(|| self.wrong(key, "an integer not below 0"))
    }

    /// A field that must be a JSON integer of 32 bits without a sign.
    pub fn integer32(&self, key: &str) -> Result<u32> {
        let n = self.integer(key)?;
        u32::try_from(n).map_err(|_| self.wrong(key, "an integer below 2^32"))
    }

    /// A field that must be an array of strings.
    pub fn strings(&self, key: &str) -> Result<Vec<&'a str>> {
        let Some(Value::Array(items)) = self.map.get(key) else { return Err(self.wrong(key, "an array of strings")) };
        let strings: Option<Vec<_>> = items.iter().map(Value::as_str).collect();
        strings.ok_or_else(|| self.error(key, "an element is not a string; only strings are allowed"))
    }

    /// The same, where the field may be absent.
    pub fn strings_if_any(&self, key: &str) -> Result<Vec<String>> {
        if !self.has(key) {
            return Ok(Vec::new());
        }
        Ok(self.strings(key)?.into_iter().map(str::to_owned).collect())
    }

    /// The members of an object whose keys are numbers, in the order of the numbers.
    pub fn numbered(&self) -> Result<Vec<(u32, Object<'a>)>> {
        let plain = |(id, o): (Option<u32>, Object<'a>)| match id {
            Some(id) => Ok((id, o)),
            None => Err(Error::corrupt(o.path, "the key is not a plain decimal number below 2^32")),
        };
        self.digits()?.into_iter().map(plain).collect()
    }

    /// The members of an object whose keys are digits, each with its number if it is a plain one, in their order.
    pub fn digits(&self) -> Result<Vec<(Option<u32>, Object<'a>)>> {
        let mut members = Vec::new();
        for (key, value) in self.map {
            if !key.bytes().all(|b| b.is_ascii_digit()) {
                return Err(self.error(key, "the key is not a decimal number"));
            }
            let Value::Object(map) = value else { return Err(self.wrong(key, "an object")) };
            members.push((number(key), Object { map, path: self.field(key) }));
        }
        members.sort_by_key(|(n, _)| *n);
        Ok(members)
    }
}

/// The number that an object key or a reference stands for. `007` would name another object than `7` does.
pub fn number(key: &str) -> Option<u32> {
    let digits = key.bytes().all(|b| b.is_ascii_digit()) && (key == "0" || !key.starts_with('0'));
    digits.then(|| key.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(area: &[u8]) -> String {
        parse_area(area).unwrap_err().rule().to_owned()
    }

    #[test]
    fn the_text_is_followed_by_nothing_but_nuls() {
        assert!(parse_area(b"{ \"a\" : [1, 2] }\0\0").is_ok());
        assert_eq!(rule(b"{}\0\0x"), "json.end");
        assert_eq!(rule(b"{}"), "json.end");
        assert!(parse_area(b"{} \n\0").is_ok());
        assert_eq!(rule(b" {}\0"), "json.start");
        assert_eq!(rule(b"{}{}\0"), "json.end");
        assert_eq!(rule(b"{\0"), "json");
        assert_eq!(rule(b""), "json.start");
    }

    #[test]
    fn nesting_and_count_are_capped_before_parsing() {
        let deep = |n: usize| format!("{{\"a\":{}{}}}\0", "[".repeat(n), "]".repeat(n)).into_bytes();
        assert!(parse_area(&deep(31)).is_ok());
        assert_eq!(rule(&deep(32)), "json.depth");
        assert_eq!(rule(format!("{{\"a\":{}1{}}}\0", "[".repeat(31), "]".repeat(31)).as_bytes()), "json.depth");
        let many = format!("{{\"a\":[{}0]}}\0", "0,".repeat(JSON_VALUES_MAX));
        assert_eq!(rule(many.as_bytes()), "json.values");
        // Braces in strings do not count.
        assert!(parse_area(format!("{{\"a\":\"{}\\\"[\"}}\0", "[".repeat(99)).as_bytes()).is_ok());
    }

    #[test]
    fn numbers_are_canonical() {
        assert_eq!(number("0"), Some(0));
        assert_eq!(number("31"), Some(31));
        for bad in ["", "01", "-1", "+1", "4294967296", "1 "] {
            assert_eq!(number(bad), None, "{bad}");
        }
    }

    #[test]
    fn typed_access_names_the_path() {
        let v: Value =
            serde_json::from_str(r#"{"s":{"0":{"size":"-5","n":1.5,"big":"18446744073709551616"}}}"#).unwrap();
        let (_, o) = Object::root(&v).unwrap().object("s").unwrap().numbered().unwrap().remove(0);
        assert_eq!(o.decimal("size").unwrap_err().rule(), "s.0.size");
        assert!(o.decimal("big").is_err());
        assert!(o.integer("n").unwrap_err().to_string().contains("the number 1.5"));
        assert!(o.string("gone").unwrap_err().to_string().contains("found nothing"));
    }
}
