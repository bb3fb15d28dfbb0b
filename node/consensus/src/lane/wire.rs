//! How messages stand on a connection.
//!
//! ```text
//! offset size field
//!      0    4 length (bytes after this field; at least 11)
//!      4    8 request id
//!     12    2 kind   (0: Hello)
//!     14    1 form   (0 request, 1 answer, 2 refusal with a text)
//!     15      body
//! ```
//! Integers are big-endian.

use std::{collections::VecDeque, io};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Largest message: a snapshot or the largest batch and what goes with it.
pub(super) const MAX_MESSAGE: usize = 64 << 20;

const PREFIX: usize = 15;
const AFTER_LENGTH: usize = PREFIX - 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Request = 0,
    Answer = 1,
    Refusal = 2,
}

#[derive(Debug)]
pub(super) struct Message {
    pub(super) id: u64,
    pub(super) kind: u16,
    pub(super) form: Form,
    pub(super) body: Bytes,
}

/// Appends a message's pieces to what is to be written.
pub(super) fn push(
    out: &mut VecDeque<Bytes>,
    (id, kind, form): (u64, u16, Form),
    parts: impl IntoIterator<Item = Bytes>,
) {
    let at = out.len();
    let mut length = AFTER_LENGTH;
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        length += part.len();
        out.push_back(part);
    }
    let mut prefix = BytesMut::with_capacity(PREFIX);
    prefix.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    prefix.put_u64(id);
    prefix.put_u16(kind);
    prefix.put_u8(form as u8);
    out.insert(at, prefix.freeze());
}

/// Writes all pieces, as many as possible with one system call.
pub(super) async fn write_all(
    writer: &mut (impl AsyncWrite + Unpin),
    out: &mut VecDeque<Bytes>,
) -> io::Result<()> {
    while !out.is_empty() {
        let written = {
            let empty = io::IoSlice::new(&[]);
            let mut slices = [empty; 64];
            let mut count = 0;
            for (slot, part) in slices.iter_mut().zip(out.iter()) {
                *slot = io::IoSlice::new(part);
                count += 1;
            }
            writer
                .write_vectored(slices.get(..count).unwrap_or_default())
                .await?
        };
        if written == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        advance(out, written);
    }
    writer.flush().await
}

fn advance(out: &mut VecDeque<Bytes>, mut written: usize) {
    while let Some(front) = out.front_mut() {
        if written < front.len() {
            front.advance(written);
            return;
        }
        written -= front.len();
        let _done = out.pop_front();
    }
}

/// What comes before a message's body.
#[derive(Debug)]
pub(super) struct Prefix {
    id: u64,
    kind: u16,
    form: Form,
    pub(super) body_bytes: usize,
}

/// Reads one message of at most `limit` bytes into a buffer of its own.
pub(super) async fn read(
    reader: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> io::Result<Message> {
    let prefix = read_prefix(reader, limit).await?;
    read_body(reader, prefix).await
}

/// Reads what comes before the body; refuses messages of more than `limit` bytes.
pub(super) async fn read_prefix(
    reader: &mut (impl AsyncRead + Unpin),
    limit: usize,
) -> io::Result<Prefix> {
    let mut prefix = [0; PREFIX];
    let _filled = reader.read_exact(&mut prefix).await?;
    let mut fields = &prefix[..];
    let length = fields.get_u32() as usize;
    let id = fields.get_u64();
    let kind = fields.get_u16();
    let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let form = match fields.get_u8() {
        0 => Form::Request,
        1 => Form::Answer,
        2 => Form::Refusal,
        _ => return Err(invalid("a message of unknown form")),
    };
    if length < AFTER_LENGTH || length > limit {
        return Err(invalid(&format!(
            "a message of {length} bytes; at most {limit} are accepted"
        )));
    }
    Ok(Prefix {
        id,
        kind,
        form,
        body_bytes: length - AFTER_LENGTH,
    })
}

/// Reads the body behind a prefix.
pub(super) async fn read_body(
    reader: &mut (impl AsyncRead + Unpin),
    prefix: Prefix,
) -> io::Result<Message> {
    let mut left = prefix.body_bytes;
    let mut body = BytesMut::with_capacity(left);
    while left > 0 {
        let got = reader.read_buf(&mut (&mut body).limit(left)).await?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        left -= got;
    }
    Ok(Message {
        id: prefix.id,
        kind: prefix.kind,
        form: prefix.form,
        body: body.freeze(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn messages_round_trip() {
        let mut out = VecDeque::new();
        let parts = [
            Bytes::from_static(b"head"),
            Bytes::new(),
            Bytes::from_static(b"tail"),
        ];
        push(&mut out, (7, 3, Form::Request), parts);
        push(&mut out, (8, 3, Form::Refusal), []);
        let mut written = Vec::new();
        write_all(&mut written, &mut out).await.unwrap();
        let mut reader = &written[..];
        let first = read(&mut reader, 100).await.unwrap();
        assert_eq!((first.id, first.kind, first.form), (7, 3, Form::Request));
        assert_eq!(&first.body[..], b"headtail");
        let second = read(&mut reader, 100).await.unwrap();
        assert_eq!(
            (second.id, second.form, second.body.len()),
            (8, Form::Refusal, 0)
        );
    }

    proptest::proptest! {
        #[test]
        fn any_message_round_trips_and_no_cut_does(
            id: u64,
            kind: u16,
            parts in proptest::collection::vec(
                proptest::collection::vec(proptest::num::u8::ANY, 0..80),
                0..5,
            ),
        ) {
            let bodies: Vec<Bytes> = parts.iter().cloned().map(Bytes::from).collect();
            let mut out = VecDeque::new();
            push(&mut out, (id, kind, Form::Answer), bodies);
            let bytes: Vec<u8> = out.iter().flatten().copied().collect();
            let read = |bytes: &[u8], limit| {
                futures::FutureExt::now_or_never(read(&mut &bytes[..], limit)).unwrap()
            };
            let message = read(&bytes, bytes.len()).unwrap();
            assert_eq!((message.id, message.kind, message.form), (id, kind, Form::Answer));
            assert_eq!(message.body, parts.concat());
            for cut in 0..bytes.len() {
                assert!(read(&bytes[..cut], bytes.len()).is_err());
            }
            assert!(read(&bytes, bytes.len() - 5).is_err());
        }
    }

    #[tokio::test]
    async fn oversized_short_and_unknown_messages_are_refused() {
        let mut out = VecDeque::new();
        push(&mut out, (7, 3, Form::Request), [Bytes::from(vec![0; 200])]);
        let mut good = Vec::new();
        write_all(&mut good, &mut out).await.unwrap();
        assert!(read(&mut &good[..], 100).await.is_err());
        assert!(read(&mut &good[..good.len() - 1], 1000).await.is_err());
        let mut tiny = good.clone();
        tiny[..4].copy_from_slice(&3u32.to_be_bytes());
        assert!(read(&mut &tiny[..], 1000).await.is_err());
        let mut form = good;
        form[14] = 9;
        assert!(read(&mut &form[..], 1000).await.is_err());
    }
}
