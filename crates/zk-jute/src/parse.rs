use bytes::Bytes;
use nom::IResult;
use nom::bytes::complete::take;
use nom::number::complete::{be_i32, be_i64, be_u8};

use crate::{Buffer, DecodeError, DecodeErrorKind, Field};

/// A position in a frame. Every read either advances over a whole value or fails.
///
/// The frame is complete before it is parsed, so nom's `complete` parsers serve: an "incomplete"
/// value is simply an error.
#[derive(Debug)]
pub struct Reader<'f> {
    frame: &'f Bytes,
    rest: &'f [u8],
}

impl<'f> Reader<'f> {
    /// Starts at the first byte of `frame`.
    #[must_use]
    pub fn new(frame: &'f Bytes) -> Self {
        Self { frame, rest: frame }
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Everything that is left, shared with the frame.
    #[must_use]
    pub fn take_rest(&mut self) -> Bytes {
        let rest = self.frame.slice_ref(self.rest);
        self.rest = &[];
        rest
    }

    /// Fails if bytes are left behind the last field of `record`.
    ///
    /// # Errors
    /// [`DecodeErrorKind::Trailing`] with their number.
    pub fn finish(&self, record: &'static str) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::new(record, DecodeErrorKind::Trailing(left))),
        }
    }

    fn run<T>(
        &mut self,
        field: &'static str,
        parser: impl FnOnce(&'f [u8]) -> IResult<&'f [u8], T>,
    ) -> Result<T, DecodeError> {
        let (rest, value) =
            parser(self.rest).map_err(|_| DecodeError::new(field, DecodeErrorKind::Truncated))?;
        self.rest = rest;
        Ok(value)
    }

    /// Reads an `int`.
    ///
    /// # Errors
    /// The frame ends first.
    pub fn int(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.run(field, be_i32)
    }

    /// The `int` that comes next, without reading it; `None` when too little is left.
    #[must_use]
    pub fn peek_int(&self) -> Option<i32> {
        self.rest.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))
    }

    /// Reads a `long`.
    ///
    /// # Errors
    /// The frame ends first.
    pub fn long(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.run(field, be_i64)
    }

    /// Reads a `boolean`: any byte but 0 is true, as Java reads it.
    ///
    /// # Errors
    /// The frame ends first.
    pub fn boolean(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        self.run(field, be_u8).map(|byte| byte != 0)
    }

    /// Reads a length-prefixed run of bytes in place; null is `None`.
    fn slice(&mut self, field: &'static str) -> Result<Option<&'f [u8]>, DecodeError> {
        let len = self.int(field)?;
        if len == -1 {
            return Ok(None);
        }
        match usize::try_from(len) {
            Ok(wanted) if wanted <= self.rest.len() => self.run(field, take(wanted)).map(Some),
            Ok(_) | Err(_) => Err(DecodeError::new(field, DecodeErrorKind::Length(len))),
        }
    }

    /// Reads a buffer that shares the frame; null is `None`.
    ///
    /// # Errors
    /// The frame ends first, or the length is negative and not −1.
    pub fn buffer(&mut self, field: &'static str) -> Result<Buffer, DecodeError> {
        let frame = self.frame;
        Ok(self.slice(field)?.map(|slice| frame.slice_ref(slice)))
    }

    /// Reads a string; null is `None`. Malformed UTF-8 becomes U+FFFD, as Java's decoder makes it.
    ///
    /// # Errors
    /// As [`Reader::buffer`].
    pub fn string(&mut self, field: &'static str) -> Result<Option<String>, DecodeError> {
        Ok(self.slice(field)?.map(lossy))
    }

    /// Reads a vector; null is `None`, and any other negative count is an empty one, as in Java.
    ///
    /// # Errors
    /// The count is more than what is left could hold, or an element is unreadable.
    pub fn vector<T: Field>(&mut self, field: &'static str) -> Result<Option<Vec<T>>, DecodeError> {
        let count = self.int(field)?;
        if count == -1 {
            return Ok(None);
        }
        // `BinaryInputArchive.BinaryIndex.done`: there is nothing to count up to.
        let wanted = usize::try_from(count).unwrap_or_default();
        if wanted > self.rest.len() / T::MIN_LEN {
            return Err(DecodeError::new(field, DecodeErrorKind::Count(count)));
        }
        // A declared element is at least `MIN_LEN` long, but larger in memory: grow as they are read
        // when the count is only a claim.
        let mut items = Vec::with_capacity(wanted.min(1024));
        for _ in 0..wanted {
            items.push(T::parse_field(self, field)?);
        }
        Ok(Some(items))
    }
}

/// What Java makes of bytes: a U+FFFD for each malformed sequence. It differs from
/// [`String::from_utf8_lossy`] in one thing: a surrogate in three bytes, of which Java's own encoder
/// makes two for a character beyond the basic plane, is one sequence.
fn lossy(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    let mut rest = bytes;
    loop {
        let error = match str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                return text;
            }
            Err(error) => error,
        };
        let (valid, malformed) = rest.split_at(error.valid_up_to());
        text.push_str(&String::from_utf8_lossy(valid));
        text.push(char::REPLACEMENT_CHARACTER);
        let skip = match malformed {
            [0xed, 0xa0..=0xbf, 0x80..=0xbf, ..] => 3,
            [0xed, 0xa0..=0xbf, ..] => 2,
            _ => error.error_len().unwrap_or(malformed.len()), // bytes
        };
        rest = malformed.get(skip..).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What Apache ZooKeeper 3.9.5 echoes for these bytes in the path of a sync.
    #[test]
    fn malformed_text_is_read_as_java_reads_it() {
        for (bytes, text) in [
            (&b"/a"[..], "/a"),
            (b"", ""),
            (b"/\xff", "/\u{fffd}"),
            (b"/a\xc3", "/a\u{fffd}"),
            (b"/\xed\xa0\x80", "/\u{fffd}"),
            (b"/\xed\xa0\xbd\xed\xb8\x80x", "/\u{fffd}\u{fffd}x"),
            (b"/\xed\xa0", "/\u{fffd}"),
            (b"/\xed\xa0x", "/\u{fffd}x"),
            (b"/\xc0\xaf", "/\u{fffd}\u{fffd}"),
            (b"/\xf0\x9f\x98", "/\u{fffd}"),
            (b"/a/\xe2\x82", "/a/\u{fffd}"),
            ("/😀ä".as_bytes(), "/😀ä"),
        ] {
            assert_eq!(lossy(bytes), text, "{bytes:x?}");
        }
    }
}
