use bytes::{BufMut, BytesMut};

/// Writes an `int`.
pub fn put_int(out: &mut BytesMut, value: i32) {
    out.put_i32(value);
}

/// Writes a `long`.
pub fn put_long(out: &mut BytesMut, value: i64) {
    out.put_i64(value);
}

/// Writes a `boolean`.
pub fn put_bool(out: &mut BytesMut, value: bool) {
    out.put_u8(u8::from(value));
}

/// Writes a length or count.
///
/// # Panics
/// At 2 GiB and more, which no frame that we accept or build can reach.
pub fn put_count(out: &mut BytesMut, count: usize) {
    out.put_i32(i32::try_from(count).expect("a frame is far below 2 GiB"));
}

/// Writes a buffer; `None` is null (length −1).
pub fn put_buffer(out: &mut BytesMut, value: Option<&[u8]>) {
    match value {
        None => out.put_i32(-1),
        Some(bytes) => {
            put_count(out, bytes.len());
            out.put_slice(bytes);
        }
    }
}

/// Writes a string.
pub fn put_string(out: &mut BytesMut, value: &str) {
    put_buffer(out, Some(value.as_bytes()));
}
