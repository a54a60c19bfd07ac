//! A list with stable keys and reuse of freed places: what timers and waiters live in.

/// Values under keys that stay valid until they are removed.
#[derive(Debug)]
pub(crate) struct Slots<T> {
    places: Vec<Option<T>>,
    free: Vec<usize>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            places: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slots<T> {
    pub(crate) fn insert(&mut self, value: T) -> usize {
        if let Some(key) = self.free.pop()
            && let Some(place) = self.places.get_mut(key)
        {
            *place = Some(value);
            return key;
        }
        self.places.push(Some(value));
        self.places.len() - 1
    }

    pub(crate) fn get_mut(&mut self, key: usize) -> Option<&mut T> {
        self.places.get_mut(key).and_then(Option::as_mut)
    }

    pub(crate) fn remove(&mut self, key: usize) -> Option<T> {
        let value = self.places.get_mut(key).and_then(Option::take)?;
        self.free.push(key);
        if self.free.len() == self.places.len() {
            // Nobody left: give back what a burst took.
            self.free.clear();
            self.places.clear();
            self.free.shrink_to(KEPT);
            self.places.shrink_to(KEPT);
        }
        Some(value)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.places.iter_mut().flatten()
    }
}

/// Places kept when all are free.
const KEPT: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_stay_valid_and_are_reused() {
        let mut slots = Slots::default();
        let (a, b) = (slots.insert('a'), slots.insert('b'));
        assert_eq!(slots.remove(a), Some('a'));
        assert_eq!(slots.remove(a), None, "a key is removed once");
        let c = slots.insert('c');
        assert_eq!(c, a);
        assert_eq!(slots.get_mut(b), Some(&mut 'b'));
        assert_eq!(slots.iter_mut().map(|v| *v).collect::<String>(), "cb");
        slots.remove(b);
        slots.remove(c);
        assert_eq!(slots.insert('d'), 0);
    }
}
