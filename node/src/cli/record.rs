//! A record as one line of JSON: a fixed form that other programs read.

use std::io::{self, Write};

use serde::Serialize;
use seriatim_client::{Header, Record};

/// The fixed form of a record. A field that is not UTF-8 has its `_base64` form instead.
#[derive(Serialize)]
struct JsonRecord<'a> {
    partition: i32,
    offset: i64,
    timestamp: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    headers: Vec<JsonHeader<'a>>,
}

#[derive(Serialize)]
struct JsonHeader<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Option<&'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
}

pub(super) fn write_json(
    partition: i32,
    record: &Record,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let (key, key_base64) = text_or_base64(record.key.as_deref());
    let (value, value_base64) = text_or_base64(record.value.as_deref());
    let json = JsonRecord {
        partition,
        offset: record.offset.0,
        timestamp: record.timestamp_ms,
        key,
        key_base64,
        value,
        value_base64,
        headers: record.headers.iter().map(json_header).collect(),
    };
    // A broken pipe must stay an I/O error.
    serde_json::to_writer(&mut *out, &json).map_err(|error| match error.io_error_kind() {
        Some(kind) => anyhow::Error::new(io::Error::from(kind)),
        None => error.into(),
    })
}

fn json_header(header: &Header) -> JsonHeader<'_> {
    let (value, value_base64) = text_or_base64(header.value.as_deref());
    JsonHeader {
        key: &header.key,
        value,
        value_base64,
    }
}

#[expect(clippy::option_option, reason = "absent, null, text")]
fn text_or_base64(bytes: Option<&[u8]>) -> (Option<Option<&str>>, Option<String>) {
    let Some(bytes) = bytes else {
        return (Some(None), None);
    };
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(Some(text)), None),
        Err(_) => (None, Some(base64(bytes))),
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let at = |i: usize| u32::from(three.get(i).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4_usize {
            let index = (bits >> (18 - 6 * digit)) & 63;
            let letter = DIGITS.get(index as usize).copied().unwrap_or(b'=');
            out.push(if digit <= three.len() {
                char::from(letter)
            } else {
                '='
            });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use seriatim_client::Offset;

    use super::*;

    #[test]
    fn base64_as_in_rfc_4648() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ];
        for (text, encoded) in cases {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe]), "//4=");
    }

    #[test]
    fn a_record_as_json() {
        let record = Record {
            offset: Offset(7),
            timestamp_ms: 5,
            key: None,
            value: Some(bytes::Bytes::from_static(&[0xff])),
            headers: vec![Header {
                key: "h".to_owned(),
                value: Some("x".into()),
            }],
        };
        let mut out = Vec::new();
        write_json(2, &record, &mut out).unwrap();
        let expected = r#"{"partition":2,"offset":7,"timestamp":5,"key":null,"value_base64":"/w==","headers":[{"key":"h","value":"x"}]}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
