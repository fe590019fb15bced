//! JSON that a terminal may show: whatever is not plain text is escaped, as JSON allows for every character.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::ser::{CompactFormatter, Formatter, PrettyFormatter, Serializer};

use crate::error::{Error, Result};

/// `value` over several lines, indented by two spaces.
///
/// # Errors
/// [`Io`](crate::ErrorKind::Io) for what JSON has no words for, such as a map whose keys are no texts.
pub fn pretty(value: &impl Serialize) -> Result<String> {
    to_string(value, PrettyFormatter::new())
}

/// `value` in one line.
///
/// # Errors
/// As [`pretty`].
pub fn compact(value: &impl Serialize) -> Result<String> {
    to_string(value, CompactFormatter)
}

fn to_string(value: &impl Serialize, formatter: impl Formatter) -> Result<String> {
    let mut out = Vec::new();
    let written = value.serialize(&mut Serializer::with_formatter(&mut out, Safe(formatter)));
    let text = written.map_err(io::Error::from).and_then(|()| String::from_utf8(out).map_err(io::Error::other));
    text.map_err(|e| Error::io("writing JSON", e))
}

/// A formatter that also escapes what JSON would allow as it is: DEL, the C1 control characters, marks that turn the
/// direction of writing, and whatever else is neither printable ASCII nor a letter or digit.
struct Safe<F>(F);

macro_rules! forward {
    ($($name:ident($($arg:ident: $t:ty),*);)*) => {$(
        fn $name<W: ?Sized + Write>(&mut self, writer: &mut W, $($arg: $t),*) -> io::Result<()> {
            self.0.$name(writer, $($arg),*)
        }
    )*};
}

impl<F: Formatter> Formatter for Safe<F> {
    fn write_string_fragment<W: ?Sized + Write>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        for c in fragment.chars() {
            match c {
                ' '..='~' => write!(writer, "{c}")?,
                c if c.is_alphanumeric() => write!(writer, "{c}")?,
                c => c.encode_utf16(&mut [0; 2]).iter().try_for_each(|unit| write!(writer, "\\u{unit:04x}"))?,
            }
        }
        Ok(())
    }

    forward! {
        begin_array();
        end_array();
        begin_array_value(first: bool);
        end_array_value();
        begin_object();
        end_object();
        begin_object_key(first: bool);
        end_object_key();
        begin_object_value();
        end_object_value();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through_and_all_of_it_comes_back() {
        let hostile = "a\"\\\u{1b}[2J\u{7f}\u{9b}31m\u{202e}\u{2066}\u{feff}\u{e0041}ü漢\r\n";
        for text in [pretty(&[hostile]).unwrap(), compact(&[hostile]).unwrap()] {
            assert!(text.chars().all(|c| c == '\n' || (' '..='~').contains(&c) || c.is_alphanumeric()), "{text}");
            assert!(text.contains("\\u001b[2J\\u007f\\u009b31m\\u202e\\u2066\\ufeff\\udb40\\udc41ü漢"), "{text}");
            assert_eq!(serde_json::from_str::<Vec<String>>(&text).unwrap(), [hostile]);
        }
    }

    #[test]
    fn keys_are_escaped_too() {
        let value = serde_json::json!({"\u{202e}": {"a": [1, 2.5, null, true]}});
        assert_eq!(compact(&value).unwrap(), r#"{"\u202e":{"a":[1,2.5,null,true]}}"#);
        assert_eq!(serde_json::from_str::<serde_json::Value>(&pretty(&value).unwrap()).unwrap(), value);
    }
}
