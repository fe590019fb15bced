//! What an authority is asked that says when a file was there: a query of RFC 3161, section 2.4.1.

use sha2::{Digest, Sha256};

/// What a query begins with, in DER up to the hash: version 1, and SHA-256 by its number 2.16.840.1.101.3.4.2.1.
pub const BEGINS: &[u8] = &[
    0x30, 57, 0x02, 1, 1, // SEQUENCE { version
    0x30, 49, 0x30, 13, 0x06, 9, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05, 0, // algorithm
    0x04, 32, // hashedMessage
];
/// The authority's certificate is wanted in the answer.
const BEHIND: [u8; 3] = [0x01, 1, 0xff];

/// What the name of a query has behind that of its file.
pub const SUFFIX: &str = ".tsq";

/// What the name of an answer has behind that of its file.
pub const ANSWER: &str = ".tsr";

/// What an answer has in it: the number of a time stamp's content, 1.2.840.113549.1.9.16.1.4, in DER.
const CONTENT: &[u8] = &[0x06, 11, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x09, 0x10, 0x01, 0x04];

/// The largest answer that is read: it may have a chain of certificates.
pub const ANSWER_MAX: u64 = 1 << 20;

/// Whether these bytes look like an authority's answer, to whatever query.
pub fn is_answer(answer: &[u8]) -> bool {
    answer.first() == Some(&0x30) && has(answer, CONTENT)
}

/// Whether the answer has the hash of a file of these bytes. Whether an authority made it is not known by that.
pub fn answers(answer: &[u8], bytes: &[u8]) -> bool {
    is_answer(answer) && has(answer, &Sha256::digest(bytes))
}

fn has(all: &[u8], part: &[u8]) -> bool {
    all.windows(part.len()).any(|window| window == part)
}

/// The query for a file of these bytes.
pub fn query(bytes: &[u8]) -> Vec<u8> {
    [BEGINS, Sha256::digest(bytes).as_slice(), &BEHIND].concat()
}
