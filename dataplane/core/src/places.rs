//! Places that are taken and given back, in a table of fixed size: all of it is reserved at the start, and none of it is
//! touched before it is used. What is kept in a place, and who may give it back, is known to the owner.

use alloc::vec::Vec;
use core::ops::{Index, IndexMut};

/// A table with room for `most` values, whose places are numbers below that.
pub(crate) struct Places<T> {
    values: Vec<T>,
    free: Vec<u16>,
    most: usize,
}

impl<T> Places<T> {
    /// No place is taken. There may be as many as `u16` numbers but one.
    pub(crate) fn new(most: usize) -> Self {
        debug_assert!(most < usize::from(u16::MAX));
        Self { values: Vec::with_capacity(most), free: Vec::with_capacity(most), most }
    }

    /// How many places are taken.
    pub(crate) const fn held(&self) -> usize {
        self.values.len() - self.free.len()
    }

    /// Whether every place is taken.
    pub(crate) const fn is_full(&self) -> bool {
        self.held() >= self.most
    }

    /// The numbers of all places that are taken, and of some that are not.
    pub(crate) const fn reach(&self) -> core::ops::Range<u16> {
        0..self.values.len() as u16
    }

    /// Takes a place for `value`; `None` when every one is taken.
    pub(crate) fn take(&mut self, value: T) -> Option<u16> {
        if let Some(place) = self.free.pop() {
            self.values[usize::from(place)] = value;
            return Some(place);
        }
        if self.is_full() {
            return None;
        }
        self.values.push(value);
        Some((self.values.len() - 1) as u16)
    }

    /// Gives back a place that is taken. With none left, whoever looks at all places has nothing to look at.
    pub(crate) fn give_back(&mut self, place: u16) {
        self.free.push(place);
        if self.held() == 0 {
            self.values.clear();
            self.free.clear();
        }
    }

    /// What is, or was, in a place.
    pub(crate) fn get(&self, place: u16) -> Option<&T> {
        self.values.get(usize::from(place))
    }

    /// The same, to be changed.
    pub(crate) fn get_mut(&mut self, place: u16) -> Option<&mut T> {
        self.values.get_mut(usize::from(place))
    }
}

impl<T> Index<u16> for Places<T> {
    type Output = T;

    fn index(&self, place: u16) -> &T {
        &self.values[usize::from(place)]
    }
}

impl<T> IndexMut<u16> for Places<T> {
    fn index_mut(&mut self, place: u16) -> &mut T {
        &mut self.values[usize::from(place)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_run_out_and_are_used_again() {
        let mut places = Places::new(3);
        assert_eq!(["a", "b", "c", "d"].map(|value| places.take(value)), [Some(0), Some(1), Some(2), None]);
        places.give_back(1);
        assert_eq!((places.held(), places.is_full(), places.reach()), (2, false, 0..3));
        assert_eq!((places.take("e"), places[1], places.get(3)), (Some(1), "e", None));
        (0..3).for_each(|place| places.give_back(place));
        assert_eq!((places.held(), places.reach(), places.take("f")), (0, 0..0, Some(0)));
    }
}
