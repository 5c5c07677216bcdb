//! The pages that a transaction has for itself.

use std::collections::{BTreeMap, TryReserveError};

use memobj_core::address::PageRange;

const PAGE: u64 = 4096;

/// Copies of pages, in runs of neighbours. Bytes of one run lie side by side.
#[derive(Debug, Default)]
pub(super) struct Copies {
    /// By the first page.
    runs: BTreeMap<u64, Vec<u8>>,
}

fn end_of(first: u64, bytes: &[u8]) -> u64 {
    first + bytes.len() as u64 / PAGE
}

impl Copies {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// How many pages.
    pub(super) fn pages(&self) -> u64 {
        self.runs.iter().map(|(first, bytes)| end_of(*first, bytes) - first).sum()
    }

    /// Zeros for `pages`, none of which is here, to be filled and [inserted](Self::insert).
    pub(super) fn zeros(pages: PageRange) -> Result<Vec<u8>, TryReserveError> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact((pages.len() * PAGE) as usize)?;
        bytes.resize((pages.len() * PAGE) as usize, 0);
        Ok(bytes)
    }

    /// `bytes` are whole pages from `first` on, none of which is here.
    pub(super) fn insert(&mut self, first: u64, bytes: Vec<u8>) {
        self.runs.insert(first, bytes);
    }

    /// The first run that ends behind `page`.
    fn run_from(&self, page: u64) -> Option<(u64, u64)> {
        let before = self.runs.range(..=page).next_back().filter(|(first, run)| end_of(**first, run) > page);
        let (first, run) = before.or_else(|| self.runs.range(page..).next())?;
        Some((*first, end_of(*first, run)))
    }

    /// The parts of `pages` that are not here.
    pub(super) fn missing(&self, pages: PageRange) -> Vec<PageRange> {
        let (mut missing, mut at) = (Vec::new(), pages.start);
        while at < pages.end {
            let (first, end) = self.run_from(at).unwrap_or((pages.end, pages.end));
            if at < first {
                missing.push(PageRange { start: at, end: first.min(pages.end) });
            }
            at = end.max(first);
        }
        missing
    }

    /// The bytes from `offset` on, up to the end of their run; or, if they are not here, how far it is to the next that are.
    pub(super) fn bytes_from(&self, offset: u64) -> Result<&[u8], Option<u64>> {
        let next = self.run_from(offset / PAGE);
        match next {
            Some((first, _)) if first * PAGE <= offset => {
                let run = self.runs.get(&first).ok_or(None)?;
                Ok(&run[(offset - first * PAGE) as usize..])
            }
            next => Err(next.map(|(first, _)| first * PAGE - offset)),
        }
    }

    /// Copies `source` to byte `offset` of the object. The pages are here.
    pub(super) fn write(&mut self, offset: u64, source: &[u8]) {
        let mut done = 0;
        while done < source.len() {
            let at = offset + done as u64;
            let run = self.run_from(at / PAGE).filter(|(first, _)| first * PAGE <= at);
            let run = run.and_then(|(first, _)| Some((first, self.runs.get_mut(&first)?)));
            let Some((first, run)) = run else { unreachable!("byte {at} is not in the transaction") };
            let into = &mut run[(at - first * PAGE) as usize..];
            let part = into.len().min(source.len() - done);
            into[..part].copy_from_slice(&source[done..done + part]);
            done += part;
        }
    }

    /// The bytes of `pages`, which are here, side by side.
    pub(super) fn side_by_side(&mut self, pages: PageRange) -> Result<&mut [u8], TryReserveError> {
        let (mut first, end) = self.run_from(pages.start).unwrap_or((pages.start, pages.start));
        if end < pages.end {
            self.join(pages)?;
            first = pages.start;
        }
        let Some(run) = self.runs.get_mut(&first) else {
            unreachable!("page {} is not in the transaction", pages.start)
        };
        let start = ((pages.start - first) * PAGE) as usize;
        Ok(&mut run[start..][..(pages.len() * PAGE) as usize])
    }

    /// Makes `pages` one run. What their runs have before and behind becomes runs of its own.
    fn join(&mut self, pages: PageRange) -> Result<(), TryReserveError> {
        let mut whole = Vec::new();
        whole.try_reserve_exact((pages.len() * PAGE) as usize)?;
        let (mut joined, mut rest) = (Vec::new(), Vec::new());
        let mut at = pages.start;
        while at < pages.end {
            let Some((first, end)) = self.run_from(at) else { break };
            let Some(run) = self.runs.get(&first) else { break };
            let inside = ((at - first) * PAGE) as usize..((end.min(pages.end) - first) * PAGE) as usize;
            rest.extend(kept(first, &run[..inside.start])?);
            rest.extend(kept(pages.end, &run[inside.end..])?);
            joined.push(first);
            whole.extend_from_slice(&run[inside]);
            at = end;
        }
        // Nothing fails from here on.
        joined.iter().for_each(|first| drop(self.runs.remove(first)));
        self.runs.extend(rest);
        self.runs.insert(pages.start, whole);
        Ok(())
    }
}

/// A copy of what a run has outside of what is joined, if anything.
fn kept(first: u64, bytes: &[u8]) -> Result<Option<(u64, Vec<u8>)>, TryReserveError> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok((!copy.is_empty()).then_some((first, copy)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(start: u64, end: u64) -> PageRange {
        PageRange { start, end }
    }

    /// A page is filled with its number.
    fn of(runs: &[(u64, u64)]) -> Copies {
        let mut copies = Copies::default();
        for &(start, end) in runs {
            let mut bytes = Copies::zeros(pages(start, end)).unwrap();
            for (page, into) in (start..).zip(bytes.chunks_mut(PAGE as usize)) {
                into.fill(page as u8);
            }
            copies.insert(start, bytes);
        }
        copies
    }

    fn all(copies: &Copies) -> Vec<(u64, u8)> {
        let runs = copies.runs.iter();
        let pages = runs.flat_map(|(first, run)| (*first..).zip(run.chunks(PAGE as usize)));
        pages.map(|(page, bytes)| (page, bytes[4095])).collect()
    }

    #[test]
    fn what_is_missing_lies_between_the_runs() {
        let copies = of(&[(2, 4), (4, 5), (8, 9)]);
        assert_eq!(copies.missing(pages(0, 10)), [pages(0, 2), pages(5, 8), pages(9, 10)]);
        assert_eq!(copies.missing(pages(3, 5)), []);
        assert_eq!(copies.missing(pages(4, 7)), [pages(5, 7)]);
        assert_eq!(copies.bytes_from(3 * PAGE + 1).map(<[u8]>::len), Ok(4095));
        assert_eq!(copies.bytes_from(5 * PAGE + 1), Err(Some(3 * PAGE - 1)));
        assert_eq!(copies.bytes_from(9 * PAGE), Err(None));
        assert_eq!(copies.pages(), 4);
    }

    #[test]
    fn pages_of_several_runs_come_side_by_side_and_none_is_lost() {
        let mut copies = of(&[(1, 4), (4, 5), (5, 9)]);
        let before = all(&copies);
        let joined = copies.side_by_side(pages(2, 7)).unwrap();
        let firsts: Vec<u8> = joined.chunks(PAGE as usize).map(|page| page[0]).collect();
        assert_eq!(firsts, [2, 3, 4, 5, 6]);
        assert_eq!(all(&copies), before);
        assert_eq!(copies.runs.keys().copied().collect::<Vec<_>>(), [1, 2, 7]);
        copies.side_by_side(pages(3, 4)).unwrap().fill(77);
        copies.write(PAGE * 2 - 1, &[88; 2]);
        assert_eq!(copies.runs.len(), 3, "nothing is copied that is side by side already");
        assert_eq!(copies.bytes_from(PAGE * 2 - 1), Ok(&[88][..]));
        assert_eq!(copies.bytes_from(PAGE * 2).unwrap()[0], 88);
        assert_eq!(copies.bytes_from(PAGE * 3).unwrap()[0], 77);
    }
}
