//! Ranges of bytes that many threads meet in any order: the lowest are listed, all are counted, and what comes out does not
//! depend on the order.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::limits::VERIFY_RANGES_MAX;

/// Ranges, each once.
#[derive(Default)]
pub struct Ranges {
    /// The lowest, by their starts.
    lowest: BTreeMap<u64, u64>,
    /// Bytes of those that there was no room for.
    beyond: u64,
}

impl Ranges {
    /// Adds a range. The same one may come several times; others do not overlap.
    pub fn add(&mut self, range: Range<u64>) {
        let known = self.lowest.get(&range.start).is_some_and(|end| *end >= range.end);
        if known || range.is_empty() {
            return;
        }
        self.lowest.insert(range.start, range.end);
        if self.lowest.len() > VERIFY_RANGES_MAX
            && let Some((start, end)) = self.lowest.pop_last()
        {
            self.beyond = self.beyond.saturating_add(end.saturating_sub(start));
        }
    }

    /// The parts of those that are listed in a range.
    pub fn within(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        let before = self.lowest.range(..range.start).next_back();
        let all = before.into_iter().chain(self.lowest.range(range.clone()));
        let parts = all.map(|(start, end)| range.start.max(*start)..range.end.min(*end));
        parts.filter(|part| part.start < part.end).collect()
    }

    /// The lowest, neighbours as one; and the bytes of all.
    pub fn listed(&self) -> (Vec<Range<u64>>, u64) {
        let mut all: Vec<Range<u64>> = Vec::new();
        let mut bytes = self.beyond;
        for (start, end) in &self.lowest {
            bytes = bytes.saturating_add(end.saturating_sub(*start));
            match all.last_mut() {
                Some(last) if last.end >= *start => last.end = last.end.max(*end),
                _ => all.push(*start..*end),
            }
        }
        (all, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_makes_no_difference() {
        let max = u64::try_from(VERIFY_RANGES_MAX).unwrap();
        let (mut up, mut down) = (Ranges::default(), Ranges::default());
        for n in 0..max + 5 {
            up.add(n * 10..n * 10 + 4);
            up.add(n * 10..n * 10 + 4);
            let n = max + 4 - n;
            down.add(n * 10..n * 10 + 4);
        }
        assert_eq!(up.listed().0, down.listed().0);
        assert_eq!(down.listed().1, (max + 5) * 4);
        let mut near = Ranges::default();
        [4..8, 0..4, 9..10].into_iter().for_each(|range| near.add(range));
        assert_eq!(near.listed(), (vec![0..8, 9..10], 9));
        assert_eq!(near.within(&(2..6)), [2..4, 4..6]);
        assert_eq!(near.within(&(8..9)), []);
    }
}
