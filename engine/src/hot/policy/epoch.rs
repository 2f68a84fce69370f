//! Time as the policy tells it: epochs of a few touches each, twelve bits, going round.
//! Knows ages and the marks that carry them; knows nothing of who is evicted for them.

/// Epochs that are told apart.
pub(crate) const EPOCHS: u16 = 1 << 12;
/// Nothing gets older: a mark is brought forward before its epoch comes again.
pub(crate) const AGE_MAX: u16 = EPOCHS / 4 * 3;
/// In how many epochs all marks are looked at for that.
pub(crate) const ROUND: u16 = 512;
/// How many epochs go by while as many records are touched as are resident.
pub(crate) const EPOCHS_A_TURN: usize = 256;

const _: () = assert!(AGE_MAX + 2 * ROUND <= EPOCHS, "a mark is seen again before it goes round");

/// How many epochs ago that was.
#[inline]
pub(crate) fn age(epoch: u16, now: u16) -> u16 {
    now.wrapping_sub(epoch) % EPOCHS
}

/// The epoch `by` before `now`.
pub(crate) fn before(now: u16, by: u16) -> u16 {
    now.wrapping_sub(by) % EPOCHS
}

/// What the policy knows of a resident record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Lives in memory alone; never evicted.
    Volatile = 0,
    /// On probation: touched once in a long time.
    New = 1,
    /// Touched twice within the time that the protected span.
    Protected = 2,
    /// Was protected for longest without a touch, and is on probation again.
    Demoted = 3,
}

/// Twelve bits of epoch, one that says the record has a deadline, two of class, and one that is
/// always set: a mark is never 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark(pub u16);

const DEADLINE: u16 = 1 << 12;
const RESIDENT: u16 = 1 << 15;

impl Mark {
    pub(crate) fn new(class: Class, epoch: u16, has_deadline: bool) -> Self {
        let deadline = if has_deadline { DEADLINE } else { 0 };
        Self(RESIDENT | ((class as u16) << 13) | deadline | (epoch % EPOCHS))
    }

    #[inline]
    pub(crate) fn class(self) -> Class {
        match self.0 >> 13 & 3 {
            0 => Class::Volatile,
            1 => Class::New,
            2 => Class::Protected,
            _ => Class::Demoted,
        }
    }

    #[inline]
    pub(crate) fn epoch(self) -> u16 {
        self.0 % EPOCHS
    }

    pub(crate) fn has_deadline(self) -> bool {
        self.0 & DEADLINE != 0
    }

    pub(crate) fn with(self, class: Class, epoch: u16) -> Self {
        Self::new(class, epoch, self.has_deadline())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_holds_class_epoch_and_deadline() {
        for class in [Class::Volatile, Class::New, Class::Protected, Class::Demoted] {
            for epoch in [0, 1, EPOCHS - 1] {
                let mark = Mark::new(class, epoch, epoch == 1);
                assert_eq!((mark.class(), mark.epoch()), (class, epoch));
                assert!(mark.0 != 0 && mark.has_deadline() == (epoch == 1));
                let other = mark.with(Class::New, 9);
                assert_eq!((other.class(), other.epoch()), (Class::New, 9));
                assert_eq!(other.has_deadline(), mark.has_deadline());
            }
        }
    }

    #[test]
    fn ages_go_round() {
        assert_eq!((age(5, 9), age(EPOCHS - 1, 2), age(7, 7)), (4, 3, 0));
        assert_eq!((before(9, 4), before(2, 3)), (5, EPOCHS - 1));
    }
}
