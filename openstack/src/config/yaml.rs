//! YAML as Python's `yaml.safe_load` reads it, since that is who reads clouds.yaml for everybody else: YAML 1.1, where
//! `no` is a truth value and `0o17` is not a number, with merge keys.
//!
//! The parser is yaml-rust2, which gives events; its own trees are YAML 1.2's, and have no merge keys. What a plain scalar
//! is follows PyYAML's resolver (`yaml/resolver.py`). Numbers become the text that Python's `str` makes of them, as every
//! number of a cloud ends as text: a `project_name: 0123` is project 83 for everyone.
//!
//! Where several maps are merged that have the same key, the first wins, as YAML's type repository has it. (PyYAML 6.0.4
//! compares keys by their identity in memory, so that for most of them the last one wins.)

use std::collections::HashMap;

use serde_json::{Map, Value};
use yaml_rust2::parser::{Event, MarkedEventReceiver, Parser};
use yaml_rust2::scanner::{Marker, TScalarStyle};

/// Nodes of a file, with each alias counted as all that it stands for: a file of a few lines could be gigabytes.
const NODES_MAX: usize = 100_000;
/// How deep lists and maps may be in each other.
const DEPTH_MAX: usize = 64;

/// Tags whose scalars are what they would be as plain ones.
const TYPES: [&str; 5] = [
    "tag:yaml.org,2002:null",
    "tag:yaml.org,2002:bool",
    "tag:yaml.org,2002:int",
    "tag:yaml.org,2002:float",
    "tag:yaml.org,2002:timestamp",
];

/// Why a text is no YAML. It quotes nothing of the text: there are passwords in it.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub what: &'static str,
}

/// Reads the only document; a text without one is null.
///
/// # Errors
/// Where it is no YAML, too large, or several documents.
pub fn parse(text: &str) -> Result<Value, Wrong> {
    let mut reader = Reader::default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let parsed = Parser::new_from_str(text).load(&mut reader, true);
    if let Some(wrong) = reader.wrong {
        return Err(wrong);
    }
    parsed.map_err(|e| Wrong { line: e.marker().line(), what: "it is no YAML" })?;
    Ok(reader.root.unwrap_or(Value::Null))
}

/// A list or a map that is not at its end.
enum Open {
    List(usize, Vec<Value>),
    Map { anchor: usize, merged: Vec<Value>, own: Map<String, Value>, key: Option<Key> },
}

enum Key {
    Name(String),
    Merge,
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    anchors: HashMap<usize, (Value, usize)>,
    nodes: usize,
    documents: usize,
    root: Option<Value>,
    wrong: Option<Wrong>,
}

impl MarkedEventReceiver for Reader {
    fn on_event(&mut self, event: Event, mark: Marker) {
        if self.wrong.is_some() {
            return;
        }
        if let Err(what) = self.take(event) {
            self.wrong = Some(Wrong { line: mark.line(), what });
        }
    }
}

impl Reader {
    fn take(&mut self, event: Event) -> Result<(), &'static str> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return Err("it has too many values, or its aliases stand for too many");
        }
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let tag = tag.map(|tag| tag.handle + &tag.suffix);
                let plain = match tag.as_deref() {
                    None => style == TScalarStyle::Plain,
                    Some("!" | "tag:yaml.org,2002:str") => false,
                    Some(tag) if TYPES.contains(&tag) => true,
                    Some(_) => return Err("it has a tag that nobody knows"),
                };
                let is_merge = plain && text == "<<";
                if let Some(Open::Map { key: key @ None, .. }) = self.open.last_mut()
                    && is_merge
                {
                    *key = Some(Key::Merge);
                    return Ok(());
                }
                let value = if plain { plain_scalar(&text) } else { Value::String(text) };
                self.add(value, anchor, 1)
            }
            Event::Alias(id) => {
                let (value, nodes) = self.anchors.get(&id).cloned().ok_or("an alias stands for nothing")?;
                self.nodes += nodes;
                self.add(value, 0, nodes)
            }
            Event::DocumentStart => {
                self.documents += 1;
                if self.documents > 1 { Err("a second document begins") } else { Ok(()) }
            }
            Event::SequenceStart(anchor, _) => self.push(Open::List(anchor, Vec::new())),
            Event::MappingStart(anchor, _) => {
                self.push(Open::Map { anchor, merged: Vec::new(), own: Map::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List(anchor, list)) => {
                    let value = Value::Array(list);
                    let nodes = count(&value);
                    self.add(value, anchor, nodes)
                }
                Some(Open::Map { anchor, merged, mut own, .. }) => {
                    // Own keys win, and then the first map that is merged.
                    for map in merged {
                        let Value::Object(map) = map else { return Err("<< wants a map, or a list of maps") };
                        for (key, value) in map {
                            own.entry(key).or_insert(value);
                        }
                    }
                    let value = Value::Object(own);
                    let nodes = count(&value);
                    self.add(value, anchor, nodes)
                }
                None => Err("it is no YAML"),
            },
            _ => Ok(()),
        }
    }

    fn push(&mut self, open: Open) -> Result<(), &'static str> {
        if self.open.len() >= DEPTH_MAX {
            return Err("lists and maps are too deep in each other");
        }
        self.open.push(open);
        Ok(())
    }

    fn add(&mut self, value: Value, anchor: usize, nodes: usize) -> Result<(), &'static str> {
        if anchor > 0 {
            self.anchors.insert(anchor, (value.clone(), nodes));
        }
        match self.open.last_mut() {
            None => {
                self.root.get_or_insert(value);
            }
            Some(Open::List(_, list)) => list.push(value),
            Some(Open::Map { merged, own, key, .. }) => match key.take() {
                None => *key = Some(Key::Name(name(value)?)),
                Some(Key::Name(name)) => {
                    own.insert(name, value);
                }
                Some(Key::Merge) => match value {
                    Value::Array(list) => merged.extend(list),
                    one => merged.push(one),
                },
            },
        }
        Ok(())
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(list) => list.iter().map(count).sum::<usize>() + 1,
        Value::Object(map) => map.values().map(|value| count(value) + 1).sum::<usize>() + 1,
        _ => 1,
    }
}

fn name(key: Value) -> Result<String, &'static str> {
    text(&key).ok_or("a key is a list, a map or nothing")
}

/// A value as the text that Python's `str` makes of it; `None` for what is no text, number or truth value.
pub fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(true) => Some("True".into()),
        Value::Bool(false) => Some("False".into()),
        Value::Number(number) => Some(number.as_i64().map_or_else(
            || number.as_u64().map_or_else(|| float(number.as_f64().unwrap_or(0.0)), |n| n.to_string()),
            |n| n.to_string(),
        )),
        _ => None,
    }
}

fn plain_scalar(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => Value::Bool(true),
        "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => Value::Bool(false),
        _ => {
            let number = integer(text).or_else(|| real(text));
            Value::String(number.or_else(|| timestamp(text)).unwrap_or_else(|| text.to_owned()))
        }
    }
}

/// The decimal text of what is an integer in YAML 1.1.
fn integer(text: &str) -> Option<String> {
    let (sign, rest) = split_sign(text);
    if !rest.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let digits: String = rest.chars().filter(|c| *c != '_').collect();
    let radix = |digits: &str, radix| u128::from_str_radix(digits, radix).ok();
    let number = if let Some(binary) = digits.strip_prefix("0b") {
        radix(binary, 2)?
    } else if let Some(hex) = digits.strip_prefix("0x") {
        radix(hex, 16)?
    } else if digits.contains(':') {
        sexagesimal(&digits)?
    } else if digits.len() > 1 && digits.starts_with('0') {
        radix(&digits, 8)?
    } else if digits.bytes().all(|b| b.is_ascii_digit()) {
        // However long: Python's have no end.
        return Some(format!("{}{digits}", minus(sign, digits != "0")));
    } else {
        return None;
    };
    Some(format!("{}{number}", minus(sign, number != 0)))
}

fn split_sign(text: &str) -> (Option<char>, &str) {
    match text.chars().next() {
        Some(sign @ ('-' | '+')) => (Some(sign), &text[1..]),
        _ => (None, text),
    }
}

fn minus(sign: Option<char>, not_zero: bool) -> &'static str {
    if sign == Some('-') && not_zero { "-" } else { "" }
}

/// `1:30:00`: each part but the first below 60.
fn sexagesimal(digits: &str) -> Option<u128> {
    let mut parts = digits.split(':');
    let first = parts.next().filter(|first| first.starts_with(|c: char| matches!(c, '1'..='9')))?;
    parts.try_fold(first.parse::<u128>().ok()?, |sum, part| {
        let short = (1..=2).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        let part = part.parse().ok().filter(|part| short && *part < 60)?;
        sum.checked_mul(60)?.checked_add(part)
    })
}

/// The text of what is a float in YAML 1.1: it has a point, and an exponent has a sign.
fn real(text: &str) -> Option<String> {
    let (sign, rest) = split_sign(text);
    if matches!(rest, ".inf" | ".Inf" | ".INF") {
        return Some(format!("{}inf", minus(sign, true)));
    }
    if sign.is_none() && matches!(rest, ".nan" | ".NaN" | ".NAN") {
        return Some("nan".into());
    }
    if rest.contains(':') {
        return base_60(rest).map(|value| float(if sign == Some('-') { -value } else { value }));
    }
    let (mantissa, exponent) = rest.find(['e', 'E']).map_or((rest, None), |at| (&rest[..at], Some(&rest[at + 1..])));
    let (before, after) = mantissa.split_once('.')?;
    let digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let whole = before.starts_with(|c: char| c.is_ascii_digit())
        || (before.is_empty() && sign.is_none() && after.starts_with(|c: char| c.is_ascii_digit()));
    let exponent_is_one = exponent.is_none_or(|exponent| {
        let (sign, digits) = split_sign(exponent);
        sign.is_some() && !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
    });
    if !whole || !digits(before) || !digits(after) || !exponent_is_one {
        return None;
    }
    let plain: String = text.chars().filter(|c| *c != '_').collect();
    plain.parse().ok().map(float)
}

/// `190:20:30.15`.
fn base_60(rest: &str) -> Option<f64> {
    let plain: String = rest.chars().filter(|c| *c != '_').collect();
    let (whole, after) = plain.split_once('.')?;
    let (first, others) = whole.split_once(':')?;
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let is_last = |part: &str| digits(part) && part.len() <= 2 && part.parse::<u8>().is_ok_and(|part| part < 60);
    if !digits(first) || !others.split(':').all(is_last) || !(after.is_empty() || digits(after)) {
        return None;
    }
    let (begun, last) = whole.rsplit_once(':')?;
    // From the smallest on, as PyYAML adds them: the sum of floats depends on it.
    let mut sum: f64 = format!("{last}.{after}").parse().ok()?;
    let mut unit = 60.0;
    for part in begun.rsplit(':') {
        sum += part.parse::<f64>().ok()? * unit;
        unit *= 60.0;
    }
    Some(sum)
}

/// A date with a time, as Python prints it; a date alone is its own text.
fn timestamp(text: &str) -> Option<String> {
    let (date, rest) = text.split_at_checked(text.find(['T', 't', ' ', '\t'])?)?;
    let time = rest.strip_prefix(['T', 't']).unwrap_or(rest.trim_start_matches([' ', '\t']));
    let numbers = |text: &str, by: char, lens: [std::ops::RangeInclusive<usize>; 3]| -> Option<[u16; 3]> {
        let mut parts = text.split(by);
        let mut found = [0; 3];
        for (to, len) in found.iter_mut().zip(lens) {
            let part =
                parts.next().filter(|part| len.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit()))?;
            *to = part.parse().ok()?;
        }
        parts.next().is_none().then_some(found)
    };
    let [year, month, day] = numbers(date, '-', [4..=4, 1..=2, 1..=2])?;
    let end = time.find(|c: char| !c.is_ascii_digit() && c != ':').unwrap_or(time.len());
    let (clock, rest) = time.split_at_checked(end)?;
    let [hour, minute, second] = numbers(clock, ':', [1..=2, 2..=2, 2..=2])?;
    let (fraction, zone) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at_checked(rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len()))?,
        None => ("", rest),
    };
    let zone = match zone.trim_start_matches([' ', '\t']) {
        "" => String::new(),
        "Z" => "+00:00".into(),
        zone => {
            let (sign, zone) = split_sign(zone);
            let (hours, minutes) = zone.split_once(':').unwrap_or((zone, "00"));
            let hours: u8 = hours.parse().ok().filter(|_| hours.len() <= 2)?;
            let minutes: u8 = minutes.parse().ok().filter(|_| minutes.len() == 2)?;
            format!("{}{hours:02}:{minutes:02}", sign?)
        }
    };
    let fraction = format!("{fraction:0<6}");
    let fraction = match fraction.get(..6)? {
        "000000" => String::new(),
        digits => format!(".{digits}"),
    };
    Some(format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}{fraction}{zone}"))
}

/// A float as Python prints it.
fn float(value: f64) -> String {
    let short = format!("{value:e}");
    let (mantissa, exponent) = short.split_once('e').unwrap_or((&short, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent @ (..=-5 | 16..)) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => format!("{value:?}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_are_what_python_makes_of_them() {
        // Each from `str(yaml.safe_load(TEXT))` of PyYAML 6.
        for (text, python) in [
            ("0123", "83"),
            ("0o17", "0o17"),
            ("089", "089"),
            ("1_000", "1000"),
            ("0x1F", "31"),
            ("0b11", "3"),
            ("12:30", "750"),
            ("12:60", "12:60"),
            ("-7", "-7"),
            ("+7", "7"),
            ("1e3", "1e3"),
            ("1.e+3", "1000.0"),
            ("1.10", "1.1"),
            ("1.0e+20", "1e+20"),
            ("1.5e-07", "1.5e-07"),
            (".5", "0.5"),
            ("5000.", "5000.0"),
            ("1.2.3", "1.2.3"),
            ("2024-01-02", "2024-01-02"),
            ("2024-1-2 3:04:05", "2024-01-02 03:04:05"),
            ("2024-01-02T10:00:00Z", "2024-01-02 10:00:00+00:00"),
            ("2001-12-14t21:59:43.10-05:00", "2001-12-14 21:59:43.100000-05:00"),
            ("2001-12-14 21:59:43.000 -5", "2001-12-14 21:59:43-05:00"),
            ("2024-01-02 and more", "2024-01-02 and more"),
            ("190:20:30.15", "685230.15"),
            ("-1:30.5", "-90.5"),
            ("1:60.5", "1:60.5"),
            ("!!int '12'", "12"),
            ("!!bool yes", "True"),
            ("! yes", "yes"),
            ("\u{feff}yes", "True"),
            ("yes", "True"),
            ("OFF", "False"),
            ("y", "y"),
            ("'yes'", "yes"),
            ("!!str 12", "12"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            (".inf", "inf"),
            ("0", "0"),
            ("-0", "0"),
        ] {
            assert_eq!(super::text(&parse(text).unwrap()).as_deref(), Some(python), "{text}");
        }
    }

    #[test]
    fn merge_keys_and_anchors() {
        let text = "base: &b {a: 1, c: {d: 2}}\nother: &o {a: 7, e: 8}\none:\n  <<: *b\n  a: 3\ntwo:\n  <<: [*b, *o]\n";
        let parsed = parse(text).unwrap();
        assert_eq!(parsed["one"], json!({"a": "3", "c": {"d": "2"}}));
        assert_eq!(parsed["two"], json!({"a": "1", "c": {"d": "2"}, "e": "8"}));
        assert_eq!(parse("a: 1\na: 2").unwrap(), json!({"a": "2"}));
    }

    #[test]
    fn what_is_wrong_has_its_line_and_quotes_nothing() {
        assert_eq!(parse("a: 1\nb: [secret\nc: }\n").unwrap_err(), Wrong { line: 3, what: "it is no YAML" });
        assert_eq!(parse("a:\n  <<: secret\n").unwrap_err().what, "<< wants a map, or a list of maps");
        assert_eq!(parse("").unwrap(), Value::Null);
        assert_eq!(parse("a: 1\n---\nb: 2\n").unwrap_err(), Wrong { line: 2, what: "a second document begins" });
        assert_eq!(parse("--- \na: 1\n...\n").unwrap(), json!({"a": "1"}));
        assert_eq!(parse("a: !secret b").unwrap_err().what, "it has a tag that nobody knows");
    }

    #[test]
    fn a_small_text_is_not_made_a_large_tree() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for i in 1..20 {
            let refs = vec![format!("*a{}", i - 1); 10].join(", ");
            text += &format!("a{i}: &a{i} [{refs}]\n");
        }
        assert!(parse(&text).unwrap_err().what.contains("too many"));
        assert!(parse(&"[".repeat(10_000)).is_err());
    }
}
