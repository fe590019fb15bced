//! The exit codes of verdicts, and which of several is the worst.

use unluks::verify::Verdict;

/// What findings make of the exit code where it restores all the same.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Findings {
    Allowed,
    Refused,
}

impl Findings {
    pub fn of(strict: bool) -> Self {
        if strict { Self::Refused } else { Self::Allowed }
    }
}

/// Of an image that there is no report of: trouble, which may pass.
pub const NO_REPORT: u8 = 1;
const NOT_RESTORABLE: u8 = 4;
const WRONG_KEY: u8 = 3;
const WITH_FINDINGS: u8 = 7;
/// Of several images, the code that comes first here.
const WORST_FIRST: [u8; 8] = [NOT_RESTORABLE, WRONG_KEY, 5, 6, 2, NO_REPORT, WITH_FINDINGS, 0];

pub fn of(verdict: Verdict, findings: Findings) -> u8 {
    match verdict {
        Verdict::RestorableWithFindings if findings == Findings::Refused => WITH_FINDINGS,
        Verdict::Restorable | Verdict::RestorableWithFindings => 0,
        Verdict::WrongKey => WRONG_KEY,
        Verdict::NotRestorable => NOT_RESTORABLE,
    }
}

pub fn worse(one: u8, other: u8) -> u8 {
    let rank = |code: u8| WORST_FIRST.iter().position(|c| *c == code);
    if rank(other) < rank(one) { other } else { one }
}
