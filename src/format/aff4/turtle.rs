//! Turtle (W3C's *RDF 1.1 Turtle*), as far as writers of AFF4 use it: prefixes, subjects with names, lists of predicates
//! and objects, literals with types. Blank nodes and collections, which no writer uses, are refused.
//!
//! Our own, since oxttl, which reads all of Turtle, brings eight crates, a generator of random numbers among them.

use std::collections::BTreeMap;

use crate::error::{Error, Result, escape};
use crate::limits::AFF4_NAME_MAX;
use crate::num::to_u64;

/// What stands as an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Object<'a> {
    /// A thing or a class, by its full name.
    Name(&'a str),
    /// A value, without the quotes, and the full name of its type, where it has one. What is escaped in it is left so.
    Literal(&'a str, &'a str),
}

const TYPE: &str = "http://www.w3.org/1999/02/22-rdf-syntax-ns#type";

/// Hands over all statements: subject, predicate, object.
pub(super) fn each(text: &str, mut take: impl FnMut(&str, &str, Object<'_>) -> Result<()>) -> Result<()> {
    let mut parser = Parser { text, at: 0, prefixes: BTreeMap::new(), base: String::new() };
    loop {
        parser.skip_space();
        if parser.rest().is_empty() {
            return Ok(());
        }
        if parser.directive()? {
            continue;
        }
        let subject = parser.name()?;
        parser.predicates(&subject, &mut take)?;
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    prefixes: BTreeMap<&'a str, String>,
    base: String,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn wrong(&self, what: &str) -> Error {
        let found: String = self.rest().chars().take(20).collect();
        let message = format!("information.turtle, byte {}: {what}; found \"{}\"", to_u64(self.at), escape(&found));
        Error::corrupt("aff4.turtle", message)
    }

    fn skip(&mut self, len: usize) {
        self.at = self.at.saturating_add(len);
    }

    fn skip_space(&mut self) {
        loop {
            let rest = self.rest();
            let trimmed = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
            self.skip(rest.len().saturating_sub(trimmed.len()));
            if !trimmed.starts_with('#') {
                return;
            }
            let line = trimmed.find(['\n', '\r']).unwrap_or(trimmed.len());
            self.skip(line);
        }
    }

    /// Goes behind `mark`, if it is next.
    fn takes(&mut self, mark: &str) -> bool {
        self.skip_space();
        let is_next = self.rest().starts_with(mark);
        if is_next {
            self.skip(mark.len());
        }
        is_next
    }

    /// Reads `@prefix`, `@base` or their forms of SPARQL, if one is next.
    fn directive(&mut self) -> Result<bool> {
        let rest = self.rest();
        let word = rest.split(char::is_whitespace).next().unwrap_or_default();
        let is = |name: &str| word.strip_prefix('@').unwrap_or(word).eq_ignore_ascii_case(name);
        let is_prefix = is("prefix");
        if !is_prefix && !is("base") {
            return Ok(false);
        }
        self.skip(word.len());
        self.skip_space();
        let prefix = if is_prefix {
            let end = self.rest().find(':').filter(|end| *end <= AFF4_NAME_MAX);
            let end = end.ok_or_else(|| self.wrong("a prefix ends with a colon"))?;
            let prefix = self.rest().get(..end).unwrap_or_default();
            self.skip(end.saturating_add(1));
            Some(prefix)
        } else {
            None
        };
        self.skip_space();
        let name = self.reference()?;
        match prefix {
            Some(prefix) => drop(self.prefixes.insert(prefix, name)),
            None => self.base = name,
        }
        if word.starts_with('@') && !self.takes(".") {
            return Err(self.wrong("a directive ends with a full stop"));
        }
        Ok(true)
    }

    fn predicates(&mut self, subject: &str, take: &mut impl FnMut(&str, &str, Object<'_>) -> Result<()>) -> Result<()> {
        loop {
            self.skip_space();
            let rest = self.rest();
            let is_a =
                rest.strip_prefix('a').is_some_and(|rest| rest.starts_with(|c: char| c.is_whitespace() || c == '<'));
            let predicate = if is_a {
                self.skip(1);
                TYPE.to_owned()
            } else {
                self.name()?
            };
            loop {
                self.object(subject, &predicate, take)?;
                if !self.takes(",") {
                    break;
                }
            }
            let mut is_more = false;
            while self.takes(";") {
                is_more = true;
            }
            if self.takes(".") {
                return Ok(());
            }
            if !is_more {
                return Err(self.wrong("a statement ends with a full stop, and its parts with a semicolon"));
            }
        }
    }

    fn object(
        &mut self,
        subject: &str,
        predicate: &str,
        take: &mut impl FnMut(&str, &str, Object<'_>) -> Result<()>,
    ) -> Result<()> {
        self.skip_space();
        let rest = self.rest();
        match rest.chars().next() {
            Some(quote @ ('"' | '\'')) => {
                let value = self.quoted(quote)?;
                let kind = if self.rest().starts_with("^^") {
                    self.skip(2);
                    self.name()?
                } else {
                    if self.rest().starts_with('@') {
                        self.skip(1);
                        let word = self.word().len();
                        self.skip(word);
                    }
                    String::new()
                };
                take(subject, predicate, Object::Literal(value, &kind))
            }
            Some('0'..='9' | '+' | '-') => {
                let value = self.word();
                self.skip(value.len());
                take(subject, predicate, Object::Literal(value, ""))
            }
            _ if matches!(self.word(), "true" | "false") => {
                let value = self.word();
                self.skip(value.len());
                take(subject, predicate, Object::Literal(value, ""))
            }
            _ => {
                let name = self.name()?;
                take(subject, predicate, Object::Name(&name))
            }
        }
    }

    /// What stands between two quotes, or between three and three.
    fn quoted(&mut self, quote: char) -> Result<&'a str> {
        let rest = self.rest();
        let long: String = std::iter::repeat_n(quote, 3).collect();
        let mark = if rest.starts_with(&long) { long } else { quote.to_string() };
        let body = rest.get(mark.len()..).unwrap_or_default();
        let mut is_escaped = false;
        for (n, c) in body.char_indices() {
            if is_escaped {
                is_escaped = false;
            } else if c == '\\' {
                is_escaped = true;
            } else if body.get(n..).is_some_and(|rest| rest.starts_with(&mark)) {
                self.skip(n.saturating_add(mark.len().saturating_mul(2)));
                return Ok(body.get(..n).unwrap_or_default());
            } else if mark.len() == 1 && matches!(c, '\n' | '\r') {
                break;
            }
        }
        Err(self.wrong("a text has no end"))
    }

    /// The characters up to a space or a mark; a full stop at their end is the statement's.
    fn word(&self) -> &'a str {
        let rest = self.rest();
        let is_end = |c: char| {
            c.is_whitespace() || matches!(c, ';' | ',' | '<' | '>' | '"' | '\'' | '(' | ')' | '[' | ']' | '#')
        };
        rest.split(is_end).next().unwrap_or_default().trim_end_matches('.')
    }

    /// A full name, between angle brackets or with a prefix.
    fn name(&mut self) -> Result<String> {
        self.skip_space();
        if self.rest().starts_with('<') {
            return self.reference();
        }
        let word = self.word();
        let (prefix, local) = word.split_once(':').ok_or_else(|| self.wrong("a name is wanted here"))?;
        let prefix = self.prefixes.get(prefix).ok_or_else(|| self.wrong("no prefix of this name was set"))?;
        self.check_len(prefix.len().saturating_add(local.len()))?;
        // A backslash stands before a mark that is a part of the name.
        let name = format!("{prefix}{}", local.replace('\\', ""));
        self.skip(word.len());
        Ok(name)
    }

    fn reference(&mut self) -> Result<String> {
        let inner = self.rest().strip_prefix('<').ok_or_else(|| self.wrong("a name is wanted here"))?;
        let end = inner.find(['>', '\n']).filter(|end| inner.get(*end..).is_some_and(|rest| rest.starts_with('>')));
        let end = end.ok_or_else(|| self.wrong("a name has no end"))?;
        let name = inner.get(..end).unwrap_or_default();
        let base = if name.contains(':') { "" } else { &self.base };
        self.check_len(base.len().saturating_add(name.len()))?;
        let full = format!("{base}{name}");
        self.skip(end.saturating_add(2));
        Ok(full)
    }

    fn check_len(&self, len: usize) -> Result<()> {
        if len <= AFF4_NAME_MAX {
            return Ok(());
        }
        let message = format!("information.turtle has a name of {} bytes; {AFF4_NAME_MAX} are allowed", to_u64(len));
        Err(Error::limit("aff4.turtle", message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Result<Vec<String>> {
        let mut found = Vec::new();
        each(text, |subject, predicate, object| {
            found.push(match object {
                Object::Name(name) => format!("{subject} {predicate} <{name}>"),
                Object::Literal(value, kind) => format!("{subject} {predicate} \"{value}\"^^{kind}"),
            });
            Ok(())
        })?;
        Ok(found)
    }

    #[test]
    fn statements_as_writers_write_them() {
        let text = "\u{feff}@prefix : <aff4://v> .\nPREFIX a: <http://s#>\n# a comment. ;\n\n<aff4://i/x>\n\ta a:Map , a:Image;\n\
                    \ta:size \"12\"^^a:long ;\n a:n 'it'; a:q \"a \\\" b\"@en, \"\"\"l\n\"q\"\"\", 7, true ; .\n\
                    :  a:in <y>.\na:b.c<p:q>:.";
        let a = "aff4://i/x http://s#";
        let wanted = [
            format!("aff4://i/x {TYPE} <http://s#Map>"),
            format!("aff4://i/x {TYPE} <http://s#Image>"),
            format!("{a}size \"12\"^^http://s#long"),
            format!("{a}n \"it\"^^"),
            format!("{a}q \"a \\\" b\"^^"),
            format!("{a}q \"l\n\"q\"^^"),
            format!("{a}q \"7\"^^"),
            format!("{a}q \"true\"^^"),
            "aff4://v http://s#in <y>".into(),
            "http://s#b.c p:q <aff4://v>".into(),
        ];
        assert_eq!(all(text).unwrap(), wanted);
        assert_eq!(all(" \n# nothing").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn what_is_no_turtle_is_refused_where_it_is() {
        for text in [
            "x",
            "<a>",
            "<a> <b>",
            "<a> <b> <c>",
            "<a> <b> \"c",
            "<a> b:c <d> .",
            "[] <b> <c> .",
            "@prefix x <y> .",
            "<a\n> <b> <c> .",
        ] {
            let e = all(text).unwrap_err();
            assert_eq!(e.rule(), "aff4.turtle", "{text}: {e}");
        }
        let long = format!("@prefix p: <{}> . p:x p:y p:{} .", "n".repeat(600), "n".repeat(600));
        assert_eq!(all(&long).unwrap_err().kind(), crate::ErrorKind::LimitExceeded);
    }
}
