//! Text made safe for HTML, JSON made safe inside `<script>`, and the hash that lets a page run its own script only.

use crate::{Error, Result};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Text for element content and quoted attributes.
pub(super) fn text(raw: &str) -> String {
    let mut safe = String::with_capacity(raw.len());
    for letter in raw.chars() {
        match letter {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&#39;"),
            _ => safe.push(letter),
        }
    }
    safe
}

/// JSON for a script element. Markup can stand in strings only, where an escape means the same.
pub(super) fn json(value: &Value) -> Result<String> {
    let text = serde_json::to_string(value)
        .map_err(|error| Error::Config(format!("cannot encode the report's data: {error}")))?;
    Ok(text
        .replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
        .replace('\u{2028}', "\\u2028")
        .replace('\u{2029}', "\\u2029"))
}

/// The source expression of a content security policy that allows exactly `script`.
pub(super) fn script_hash(script: &str) -> String {
    format!("'sha256-{}'", base64(&Sha256::digest(script)))
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for digit in 0..4 {
            let index = bits >> (18 - 6 * digit) & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[index as usize]) } else { '=' });
        }
    }
    text
}

/// `template` with each `{{name}}` replaced; what is put in is not looked at again.
///
/// # Errors
/// A name that has no value.
pub(super) fn filled(template: &str, values: &[(&str, &str)]) -> Result<String> {
    let mut page = String::new();
    let mut rest = template;
    while let Some((before, behind)) = rest.split_once("{{") {
        let (name, after) = behind
            .split_once("}}")
            .ok_or_else(|| Error::Config("the page's template has an open place".into()))?;
        let value = values.iter().find(|value| value.0 == name);
        let (_, value) =
            value.ok_or_else(|| Error::Config(format!("the page's template has an unknown place {name}")))?;
        page.push_str(before);
        page.push_str(value);
        rest = after;
    }
    page.push_str(rest);
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_the_known_values() {
        let known = [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")];
        for (plain, coded) in known {
            assert_eq!(base64(plain.as_bytes()), coded);
        }
        assert_eq!(script_hash(""), "'sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU='");
    }

    #[test]
    fn values_are_not_filled_again() {
        assert_eq!(filled("<{{a}}{{b}}>", &[("a", "{{b}}"), ("b", "2")]).unwrap(), "<{{b}}2>");
        assert!(filled("{{c}}", &[]).is_err() && filled("{{c", &[]).is_err());
    }
}
