use std::fmt;

/// Why bytes are not the record they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecodeError {
    /// The field that could not be read, or the record's name for an error that has no field.
    pub field: &'static str,
    /// What was wrong with it.
    pub kind: DecodeErrorKind,
}

/// The ways in which a field can be unreadable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeErrorKind {
    /// The frame ends inside the field.
    Truncated,
    /// A length below −1, or one that does not fit what is left of the frame.
    Length(i32),
    /// A vector's count is more than what is left of the frame could hold.
    Count(i32),
    /// Null where a value is required.
    Null,
    /// Bytes are left behind the last field.
    Trailing(usize),
    /// A number that names nothing: an unknown type, mode or kind.
    Unknown(i32),
}

impl DecodeError {
    /// An error about `field`.
    #[must_use]
    pub fn new(field: &'static str, kind: DecodeErrorKind) -> Self {
        Self { field, kind }
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.field)?;
        match self.kind {
            DecodeErrorKind::Truncated => write!(f, "the frame ends inside this field"),
            DecodeErrorKind::Length(len) => write!(f, "unreasonable length {len}"),
            DecodeErrorKind::Count(count) => write!(f, "unreasonable count {count}"),
            DecodeErrorKind::Null => write!(f, "null is not allowed here"),
            DecodeErrorKind::Trailing(left) => write!(f, "{left} bytes left over"),
            DecodeErrorKind::Unknown(value) => write!(f, "unknown value {value}"),
        }
    }
}

impl std::error::Error for DecodeError {}
