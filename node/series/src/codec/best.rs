//! The shortest of some candidates: they are written one after another to the end of some bytes, where the shortest stays.
//!
//! Never here: what is written. Invariant: ties go to the candidate that was offered first.

/// Candidates on their way.
pub(crate) struct Best<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    most: usize,
    found: bool,
}

impl<'o> Best<'o> {
    /// Wants fewer than `most` bytes at the end of `out`.
    pub(crate) fn new(out: &'o mut Vec<u8>, most: usize) -> Best<'o> {
        let start = out.len();
        Best {
            out,
            start,
            most,
            found: false,
        }
    }

    /// Fewer bytes than these are wanted by now.
    pub(crate) fn most(&self) -> usize {
        self.most
    }

    /// Whether there is one.
    pub(crate) fn found(&self) -> bool {
        self.found
    }

    /// A candidate that appends its bytes. It is told how few they must be, and may give up (then false, whatever it
    /// appended). True where it is the shortest so far.
    pub(crate) fn offer(&mut self, put: impl FnOnce(&mut Vec<u8>, usize) -> bool) -> bool {
        let end = self.out.len();
        let shorter = put(self.out, self.most) && self.out.len() - end < self.most;
        if shorter {
            self.most = self.out.len() - end;
            if self.found {
                self.out.drain(self.start..end);
            }
            self.found = true;
        } else {
            self.out.truncate(end);
        }
        shorter
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_stays() {
        let mut out = b"kept".to_vec();
        let mut best = Best::new(&mut out, 9);
        let candidate = |text: &'static [u8], finished: bool| {
            move |out: &mut Vec<u8>, _: usize| {
                out.extend_from_slice(text);
                finished
            }
        };
        assert!(!best.offer(candidate(b"too long.", true)));
        assert!(!best.found());
        assert!(best.offer(candidate(b"four", true)));
        assert!(!best.offer(candidate(b"also", true)));
        assert!(!best.offer(candidate(b"up", false)));
        assert!(best.offer(candidate(b"one", true)));
        assert_eq!(best.most(), 3);
        assert_eq!(out, b"keptone");
    }
}
