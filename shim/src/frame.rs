//! ttrpc's framing: ten bytes (length and stream id as big-endian u32, type, flags), then the payload.
//!
//! The `ttrpc` crate is not used: its sync server keeps a worker thread for every call that blocks, so 200 outstanding Waits
//! are 200 threads, and its async server is tokio. What remains of it are these few lines and the four messages of
//! `proto/containerd/ttrpc.proto`.

/// Bytes before each payload.
pub const HEADER: usize = 10;
/// The longest payload that either side takes (4 MiB, as in Go's implementation).
pub const PAYLOAD_MAX: usize = 4 << 20;

/// A call.
pub const REQUEST: u8 = 1;
/// Its answer.
pub const RESPONSE: u8 = 2;
/// A message of a streaming call.
pub const DATA: u8 = 3;

/// A frame's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Bytes of payload that follow.
    pub length: u32,
    /// Which call it belongs to; a client's are odd.
    pub stream: u32,
    /// [`REQUEST`], [`RESPONSE`] or [`DATA`].
    pub kind: u8,
    /// Of streaming calls only.
    pub flags: u8,
}

/// A whole frame with `payload`.
pub fn encode(stream: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEADER + payload.len());
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(&[kind, 0]);
    frame.extend_from_slice(payload);
    frame
}

/// What the decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A frame.
    Whole(Header, Vec<u8>),
    /// A frame whose payload exceeds [`PAYLOAD_MAX`], which is skipped.
    TooLong(Header),
}

/// Cuts frames out of a stream of bytes; holds no memory between frames.
#[derive(Debug, Default)]
pub struct Decoder {
    partial: Vec<u8>,
    skip: usize,
}

impl Decoder {
    /// Takes in bytes that have arrived, and hands every frame they complete to `each`.
    pub fn take(&mut self, mut bytes: &[u8], mut each: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len());
                self.skip -= skipped;
                bytes = &bytes[skipped..];
                continue;
            }
            if self.partial.len() < HEADER {
                bytes = self.fill(bytes, HEADER);
                if self.partial.len() < HEADER {
                    return;
                }
            }
            let header = self.header();
            let length = header.length as usize;
            if length > PAYLOAD_MAX {
                self.partial = Vec::new();
                self.skip = length;
                each(Frame::TooLong(header));
                continue;
            }
            bytes = self.fill(bytes, HEADER + length);
            if self.partial.len() == HEADER + length {
                let payload = self.partial[HEADER..].to_vec();
                self.partial = Vec::new();
                each(Frame::Whole(header, payload));
            }
        }
    }

    /// Moves bytes over until `partial` has `size` of them, and returns the rest.
    fn fill<'a>(&mut self, bytes: &'a [u8], size: usize) -> &'a [u8] {
        let missing = (size - self.partial.len()).min(bytes.len());
        self.partial.extend_from_slice(&bytes[..missing]);
        &bytes[missing..]
    }

    fn header(&self) -> Header {
        let word = |at: usize| u32::from_be_bytes([0, 1, 2, 3].map(|i| self.partial[at + i]));
        Header { length: word(0), stream: word(4), kind: self.partial[8], flags: self.partial[9] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(decoder: &mut Decoder, bytes: &[u8]) -> Vec<Frame> {
        let mut frames = Vec::new();
        decoder.take(bytes, |frame| frames.push(frame));
        frames
    }

    fn whole(stream: u32, kind: u8, payload: &[u8]) -> Frame {
        Frame::Whole(Header { length: payload.len() as u32, stream, kind, flags: 0 }, payload.to_vec())
    }

    #[test]
    fn a_frame_is_ten_bytes_and_its_payload() {
        assert_eq!(encode(0x0102_0305, RESPONSE, b"hi"), b"\0\0\0\x02\x01\x02\x03\x05\x02\0hi");
    }

    #[test]
    fn frames_come_out_however_the_bytes_arrive() {
        let mut bytes = encode(1, REQUEST, b"first");
        bytes.extend(encode(3, REQUEST, b""));
        bytes.extend(encode(5, DATA, &[7; 300]));
        let expected = vec![whole(1, REQUEST, b"first"), whole(3, REQUEST, b""), whole(5, DATA, &[7; 300])];
        for size in [1, 2, 9, 10, 11, 64, bytes.len()] {
            let mut decoder = Decoder::default();
            let frames: Vec<_> = bytes.chunks(size).flat_map(|chunk| decode(&mut decoder, chunk)).collect();
            assert_eq!(frames, expected, "in pieces of {size}");
        }
    }

    #[test]
    fn a_frame_that_is_too_long_is_skipped_and_the_next_one_read() {
        let length = PAYLOAD_MAX + 1;
        let mut bytes = (length as u32).to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0, 0, 0, 9, REQUEST, 0]);
        bytes.resize(bytes.len() + length, 0xff);
        bytes.extend(encode(11, REQUEST, b"next"));
        let mut decoder = Decoder::default();
        let frames: Vec<_> = bytes.chunks(65_536).flat_map(|chunk| decode(&mut decoder, chunk)).collect();
        let header = Header { length: length as u32, stream: 9, kind: REQUEST, flags: 0 };
        assert_eq!(frames, vec![Frame::TooLong(header), whole(11, REQUEST, b"next")]);
    }
}
