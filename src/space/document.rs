//! A settings file as a tree that remembers where every value stands.
//!
//! In: the text of a TOML file. Out: typed values, or an error that names the file, the line, the offending value
//! and the valid ones; unknown keys are errors that name the nearest known key.

use crate::error::{Error, Result};
use std::ops::RangeInclusive;
use std::path::Path;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A parsed file.
pub(crate) struct Document<'a> {
    path: &'a Path,
    text: &'a str,
    root: DeTable<'a>,
}

impl<'a> Document<'a> {
    /// Parses `text`; `path` only appears in messages.
    pub(crate) fn parse(path: &'a Path, text: &'a str) -> Result<Document<'a>> {
        let root = DeTable::parse(text).map_err(|error| {
            let line = error.span().map_or(0, |span| line_of(text, span.start));
            Error::format(path, format!("line {line}: {}", error.message()))
        })?;
        Ok(Document { path, text, root: root.into_inner() })
    }

    /// The keys outside of any section.
    pub(crate) fn root(&self) -> Section<'_> {
        Section { path: self.path, text: self.text, name: "", line: 1, table: &self.root, known: Vec::new() }
    }
}

fn line_of(text: &str, offset: usize) -> usize {
    text.as_bytes()[..offset.min(text.len())].iter().filter(|&&byte| byte == b'\n').count() + 1
}

/// A table of the file; keys are read by name, [`Section::finish`] then refuses those that were never asked for.
pub(crate) struct Section<'a> {
    path: &'a Path,
    text: &'a str,
    name: &'static str,
    line: usize,
    table: &'a DeTable<'a>,
    known: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The sub-table `[name]`, which must be there.
    pub(crate) fn section(&mut self, name: &'static str) -> Result<Section<'a>> {
        self.known.push(name);
        let Some(value) = self.table.get(name) else {
            self.refuse_unknown(Some(name))?;
            return Err(Error::format(self.path, format!("section [{name}] is missing")));
        };
        match value.get_ref() {
            DeValue::Table(table) => Ok(Section {
                path: self.path,
                text: self.text,
                name,
                line: line_of(self.text, value.span().start),
                table,
                known: Vec::new(),
            }),
            _ => Err(self.wrong(name, value, "a section")),
        }
    }

    /// Refuses keys that were not read.
    pub(crate) fn finish(self) -> Result<()> {
        self.refuse_unknown(None)
    }

    // A key that is missing is often there, misspelt: with `missing` the nearest unknown key is blamed first.
    fn refuse_unknown(&self, missing: Option<&'static str>) -> Result<()> {
        let mut unknown: Vec<_> = self
            .table
            .iter()
            .filter(|(key, _)| !self.known.contains(&key.get_ref().as_ref()))
            .filter(|(key, _)| missing.is_none_or(|missing| nearest(key.get_ref(), [missing]).is_some()))
            .collect();
        unknown.sort_by_key(|(key, _)| key.span().start);
        let Some((key, _)) = unknown.first() else { return Ok(()) };
        let name = key.get_ref().as_ref();
        let line = line_of(self.text, key.span().start);
        let hint = nearest(name, self.known.iter().copied()).map_or_else(
            || format!("valid keys: {}", self.known.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        let place = if self.name.is_empty() { String::new() } else { format!(" in section [{}]", self.name) };
        Err(Error::format(self.path, format!("line {line}: unknown key `{name}`{place}; {hint}")))
    }

    fn full(&self, key: &str) -> String {
        if self.name.is_empty() { key.to_owned() } else { format!("{}.{key}", self.name) }
    }

    fn wrong(&self, key: &str, value: &Spanned<DeValue<'_>>, expected: &str) -> Error {
        let line = line_of(self.text, value.span().start);
        let found = self.text.get(value.span()).unwrap_or_default().split('\n').next().unwrap_or_default();
        Error::format(self.path, format!("line {line}: `{}` is {found}; expected {expected}", self.full(key)))
    }

    /// An error about the value of `key` as a whole.
    pub(crate) fn refuse(&self, key: &str, expected: &str) -> Error {
        match self.table.get(key) {
            Some(value) => self.wrong(key, value, expected),
            None => Error::format(
                self.path,
                format!("line {}: `{}` is missing: {expected}", self.line, self.full(key)),
            ),
        }
    }

    fn optional(&mut self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.known.push(key);
        self.table.get(key)
    }

    fn required(&mut self, key: &'static str, expected: &str) -> Result<&'a Spanned<DeValue<'a>>> {
        match self.optional(key) {
            Some(value) => Ok(value),
            None => {
                self.refuse_unknown(Some(key))?;
                Err(self.refuse(key, expected))
            }
        }
    }

    /// A string.
    pub(crate) fn string(&mut self, key: &'static str) -> Result<String> {
        let value = self.required(key, "a string")?;
        value.get_ref().as_str().map(str::to_owned).ok_or_else(|| self.wrong(key, value, "a string"))
    }

    /// A number from 0 to 1.
    pub(crate) fn probability(&mut self, key: &'static str) -> Result<f64> {
        let expected = "a probability from 0 to 1";
        let value = self.required(key, expected)?;
        let number = match value.get_ref() {
            DeValue::Float(float) => float.as_str().parse::<f64>().ok(),
            DeValue::Integer(_) => integer(value).map(|n| n as f64),
            _ => None,
        };
        number.filter(|p| (0.0..=1.0).contains(p)).ok_or_else(|| self.wrong(key, value, expected))
    }

    /// An integer within `valid`.
    pub(crate) fn integer(&mut self, key: &'static str, valid: RangeInclusive<u64>) -> Result<u64> {
        let expected = format!("an integer from {} to {}", valid.start(), valid.end());
        let value = self.required(key, &expected)?;
        integer(value).filter(|n| valid.contains(n)).ok_or_else(|| self.wrong(key, value, &expected))
    }

    /// An integer within `valid`, or nothing where the key is absent.
    pub(crate) fn optional_integer(
        &mut self,
        key: &'static str,
        valid: RangeInclusive<u64>,
    ) -> Result<Option<u64>> {
        if self.table.contains_key(key) {
            return self.integer(key, valid).map(Some);
        }
        self.known.push(key);
        Ok(None)
    }

    /// Two integers `[least, most]` within `valid`.
    pub(crate) fn range(
        &mut self,
        key: &'static str,
        valid: RangeInclusive<usize>,
    ) -> Result<RangeInclusive<usize>> {
        let expected = format!("[least, most] with {} <= least <= most <= {}", valid.start(), valid.end());
        let value = self.required(key, &expected)?;
        let bounds: Option<Vec<usize>> = value
            .get_ref()
            .as_array()
            .and_then(|items| items.iter().map(|item| integer(item).map(|n| n as usize)).collect());
        match bounds.as_deref() {
            Some(&[least, most]) if least <= most && valid.contains(&least) && valid.contains(&most) => {
                Ok(least..=most)
            }
            _ => Err(self.wrong(key, value, &expected)),
        }
    }

    fn items<T: PartialEq>(
        &mut self,
        key: &'static str,
        expected: &str,
        read: impl Fn(&Self, &'a Spanned<DeValue<'a>>) -> Result<T>,
    ) -> Result<Vec<T>> {
        let expected = format!("a list of one or more of: {expected}");
        let value = self.required(key, &expected)?;
        let Some(items) = value.get_ref().as_array().filter(|items| !items.is_empty()) else {
            return Err(self.wrong(key, value, &expected));
        };
        let mut list = Vec::with_capacity(items.len());
        for item in items.iter() {
            let entry = read(self, item)?;
            if list.contains(&entry) {
                return Err(self.wrong(key, item, "every entry once"));
            }
            list.push(entry);
        }
        Ok(list)
    }

    /// Distinct integers for which `accepts` holds; `expected` says which these are.
    pub(crate) fn integers(
        &mut self,
        key: &'static str,
        expected: &str,
        accepts: impl Fn(u64) -> bool,
    ) -> Result<Vec<usize>> {
        self.items(key, expected, |section, item| {
            integer(item)
                .filter(|&n| accepts(n))
                .map(|n| n as usize)
                .ok_or_else(|| section.wrong(key, item, expected))
        })
    }

    /// Distinct names, each turned into a value by `parse`; `names` lists the valid ones.
    pub(crate) fn names<T: PartialEq>(
        &mut self,
        key: &'static str,
        names: &[&'static str],
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Vec<T>> {
        let all = names.join(", ");
        self.items(key, &all, |section, item| {
            let name = item.get_ref().as_str().unwrap_or_default();
            parse(name).ok_or_else(|| match nearest(name, names.iter().copied()) {
                Some(near) => section.wrong(key, item, &format!("one of {all}; did you mean `{near}`?")),
                None => section.wrong(key, item, &format!("one of {all}")),
            })
        })
    }
}

fn integer(value: &Spanned<DeValue<'_>>) -> Option<u64> {
    let integer = value.get_ref().as_integer()?;
    u64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// The candidate nearest in spelling to `name`, if one is near enough to be meant.
pub(crate) fn nearest<'n>(name: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    candidates
        .into_iter()
        .map(|candidate| (edit_distance(&name.to_lowercase(), &candidate.to_lowercase()), candidate))
        .filter(|&(distance, candidate)| distance <= 1 + candidate.len().min(name.len()) / 3)
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

// Levenshtein distance over bytes: names are ASCII.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshtein() {
        for (a, b, distance) in
            [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("conv3x3", "conv_3x3", 1)]
        {
            assert_eq!(edit_distance(a, b), distance, "{a} {b}");
        }
        assert_eq!(nearest("conv3x3", ["conv_1x1", "conv_3x3", "cse"]), Some("conv_3x3"));
        assert_eq!(nearest("transformer", ["conv_1x1", "conv_3x3", "cse"]), None);
    }

    #[test]
    fn numbers_remember_their_line() {
        let text = "a = 1\n[s]\nb = 0x10\nc = [3, 2]\nd = 1_000\n";
        let document = Document::parse(Path::new("f.toml"), text).unwrap();
        let mut root = document.root();
        assert_eq!(root.integer("a", 0..=9).unwrap(), 1);
        let mut section = root.section("s").unwrap();
        assert_eq!(section.integer("b", 0..=20).unwrap(), 16);
        assert_eq!(section.optional_integer("d", 0..=2000).unwrap(), Some(1000));
        let error = section.range("c", 1..=9).unwrap_err().to_string();
        assert_eq!(
            error,
            "f.toml: line 4: `s.c` is [3, 2]; expected [least, most] with 1 <= least <= most <= 9"
        );
        let error = section.integer("missing", 0..=1).unwrap_err().to_string();
        assert_eq!(error, "f.toml: line 2: `s.missing` is missing: an integer from 0 to 1");
    }
}
