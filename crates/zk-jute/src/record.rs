use bytes::{Bytes, BytesMut};

use crate::{Buffer, DecodeError, DecodeErrorKind, Reader, encode};

/// A jute record: fields in order, nothing else.
pub trait Record: Sized {
    /// The record's name, for error messages.
    const NAME: &'static str;

    /// Reads the record at the reader's position and leaves the reader behind it.
    ///
    /// # Errors
    /// Names the first field that cannot be read.
    fn parse(reader: &mut Reader<'_>) -> Result<Self, DecodeError>;

    /// Appends the record to `out`.
    fn encode(&self, out: &mut BytesMut);

    /// Reads a record that must fill the whole frame.
    ///
    /// # Errors
    /// As [`Record::parse`], and [`DecodeErrorKind::Trailing`] when bytes are left over.
    fn decode(frame: &Bytes) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame);
        let record = Self::parse(&mut reader)?;
        reader.finish(Self::NAME)?;
        Ok(record)
    }

    /// The record alone, as bytes.
    fn to_bytes(&self) -> Bytes {
        let mut out = BytesMut::new();
        self.encode(&mut out);
        out.freeze()
    }
}

/// A type that can be a record's field or a vector's element.
pub trait Field: Sized {
    /// The fewest bytes a value takes: what bounds a vector's count before it is believed.
    const MIN_LEN: usize;

    /// Reads one value; `field` names it in errors.
    ///
    /// # Errors
    /// The value is truncated, too long, or null where null means nothing.
    fn parse_field(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError>;

    /// Appends the value to `out`.
    fn encode_field(&self, out: &mut BytesMut);
}

impl Field for i32 {
    const MIN_LEN: usize = 4;

    fn parse_field(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        reader.int(field)
    }

    fn encode_field(&self, out: &mut BytesMut) {
        encode::put_int(out, *self);
    }
}

impl Field for i64 {
    const MIN_LEN: usize = 8;

    fn parse_field(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        reader.long(field)
    }

    fn encode_field(&self, out: &mut BytesMut) {
        encode::put_long(out, *self);
    }
}

impl Field for bool {
    const MIN_LEN: usize = 1;

    fn parse_field(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        reader.boolean(field)
    }

    fn encode_field(&self, out: &mut BytesMut) {
        encode::put_bool(out, *self);
    }
}

impl Field for Buffer {
    const MIN_LEN: usize = 4;

    fn parse_field(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        reader.buffer(field)
    }

    fn encode_field(&self, out: &mut BytesMut) {
        encode::put_buffer(out, self.as_deref());
    }
}

/// A string that must be there: Java throws on a null one wherever it is used.
impl Field for String {
    const MIN_LEN: usize = 4;

    fn parse_field(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        reader.string(field)?.ok_or(DecodeError::new(field, DecodeErrorKind::Null))
    }

    fn encode_field(&self, out: &mut BytesMut) {
        encode::put_string(out, self);
    }
}

/// A string that may be null.
impl Field for Option<String> {
    const MIN_LEN: usize = 4;

    fn parse_field(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        reader.string(field)
    }

    fn encode_field(&self, out: &mut BytesMut) {
        encode::put_buffer(out, self.as_deref().map(str::as_bytes));
    }
}

/// A vector whose null is read as empty, as every user of it in ZooKeeper treats it.
impl<T: Field> Field for Vec<T> {
    const MIN_LEN: usize = 4;

    fn parse_field(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        Ok(reader.vector(field)?.unwrap_or_default())
    }

    fn encode_field(&self, out: &mut BytesMut) {
        encode::put_count(out, self.len());
        for item in self {
            item.encode_field(out);
        }
    }
}

/// A vector that keeps null apart from empty.
impl<T: Field> Field for Option<Vec<T>> {
    const MIN_LEN: usize = 4;

    fn parse_field(reader: &mut Reader<'_>, field: &'static str) -> Result<Self, DecodeError> {
        reader.vector(field)
    }

    fn encode_field(&self, out: &mut BytesMut) {
        match self {
            None => encode::put_int(out, -1),
            Some(items) => items.encode_field(out),
        }
    }
}

/// Declares records: the struct, [`Record`] and [`Field`] from one field list.
#[macro_export]
macro_rules! records {
    ($($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident : $type:ty),* $(,)? })*) => {$(
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        #[allow(unreachable_pub, reason = "the module decides who sees its records")]
        pub struct $name { $($(#[$field_meta])* #[allow(missing_docs)] pub $field: $type),* }

        impl $crate::Record for $name {
            const NAME: &'static str = stringify!($name);

            #[allow(unused_variables)]
            fn parse(reader: &mut $crate::Reader<'_>) -> Result<Self, $crate::DecodeError> {
                Ok(Self { $($field: <$type as $crate::Field>::parse_field(reader, stringify!($field))?),* })
            }

            #[allow(unused_variables)]
            fn encode(&self, out: &mut $crate::__BytesMut) {
                $($crate::Field::encode_field(&self.$field, out);)*
            }
        }

        impl $crate::Field for $name {
            // A record without fields still counts as a byte, so that a count stays bounded.
            const MIN_LEN: usize = {
                let sum = 0 $(+ <$type as $crate::Field>::MIN_LEN)*;
                if sum == 0 { 1 } else { sum }
            };

            fn parse_field(reader: &mut $crate::Reader<'_>, _field: &'static str) -> Result<Self, $crate::DecodeError> {
                $crate::Record::parse(reader)
            }

            fn encode_field(&self, out: &mut $crate::__BytesMut) {
                $crate::Record::encode(self, out);
            }
        }
    )*};
}

#[cfg(test)]
mod tests {
    use super::*;

    records! {
        /// Every kind of field.
        Everything { a: i32, b: i64, c: bool, d: Buffer, e: String, f: Option<String>, g: Vec<String>, h: Option<Vec<i64>> }
        /// Nothing.
        Empty {}
    }

    fn sample() -> Everything {
        Everything {
            a: -7,
            b: i64::MIN,
            c: true,
            d: Some(Bytes::from_static(b"\0data")),
            e: "/päth".into(),
            f: None,
            g: vec!["x".into(), String::new()],
            h: Some(vec![1, -1]),
        }
    }

    #[test]
    fn every_field_survives_a_round_trip() {
        let bytes = sample().to_bytes();
        assert_eq!(Everything::decode(&bytes), Ok(sample()));
    }

    #[test]
    fn every_truncation_is_refused() {
        let bytes = sample().to_bytes();
        for len in 0..bytes.len() {
            assert!(Everything::decode(&bytes.slice(..len)).is_err(), "{len} bytes were accepted");
        }
    }

    #[test]
    fn trailing_bytes_are_counted() {
        let mut bytes = BytesMut::from(&sample().to_bytes()[..]);
        bytes.extend_from_slice(b"xyz");
        let error = Everything::decode(&bytes.freeze()).unwrap_err();
        assert_eq!(error, DecodeError::new("Everything", DecodeErrorKind::Trailing(3)));
    }

    #[test]
    fn null_and_empty_buffers_differ() {
        for (value, hex) in [(None, &[0xff; 4]), (Some(Bytes::new()), &[0; 4])] {
            let mut out = BytesMut::new();
            value.encode_field(&mut out);
            assert_eq!(&out[..], hex);
            let frame = out.freeze();
            assert_eq!(Reader::new(&frame).buffer("d"), Ok(value));
        }
    }

    #[test]
    fn a_buffer_shares_its_frame() {
        let bytes = sample().to_bytes();
        let data = Everything::decode(&bytes).unwrap().d.unwrap();
        assert!(bytes.as_ptr_range().contains(&data.as_ptr()));
    }

    #[test]
    fn lengths_and_counts_are_checked_before_they_are_believed() {
        for len in [-2, i32::MIN, 1, i32::MAX] {
            let frame = Bytes::copy_from_slice(&len.to_be_bytes());
            let expected = DecodeError::new("d", DecodeErrorKind::Length(len));
            assert_eq!(Reader::new(&frame).buffer("d"), Err(expected));
        }
        let frame = Bytes::copy_from_slice(&i32::MAX.to_be_bytes());
        assert_eq!(
            Reader::new(&frame).vector::<String>("g"),
            Err(DecodeError::new("g", DecodeErrorKind::Count(i32::MAX)))
        );
        assert!(Reader::new(&frame).vector::<Empty>("g").is_err());
    }

    #[test]
    fn other_negative_counts_are_empty_vectors_as_in_java() {
        let vector = |count: i32| {
            let frame = Bytes::copy_from_slice(&count.to_be_bytes());
            Reader::new(&frame).vector::<i32>("h")
        };
        assert_eq!(vector(-1), Ok(None));
        assert_eq!(vector(-2), Ok(Some(Vec::new())));
        assert_eq!(vector(i32::MIN), Ok(Some(Vec::new())));
    }

    #[test]
    fn malformed_utf8_is_replaced_not_refused() {
        let frame = Bytes::from_static(b"\0\0\0\x02\xc3\x28");
        assert_eq!(Reader::new(&frame).string("e"), Ok(Some("\u{fffd}(".into())));
    }
}
