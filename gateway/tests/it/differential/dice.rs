//! The same requests for the same seed, everywhere.

/// xorshift64*.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    pub fn below(&mut self, n: usize) -> usize {
        (self.next() >> 33) as usize % n
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// The value of a field that nothing else has: every byte that may stand in one, no blank at its ends.
    pub fn value(&mut self, number: usize) -> Vec<u8> {
        let mut value = format!("{number}-").into_bytes();
        for _ in 0..self.below(12) {
            value.push(self.pick(b"az09 \t,;=\"'%:/\\(){}\x80\xc3\xa9\xff~"));
        }
        value.push(b'.');
        value
    }

    /// Bytes that look like nothing, now and then many of them.
    pub fn bytes(&mut self) -> Vec<u8> {
        let many = if self.one_in(20) { 20_000 } else { 40 };
        let mut bytes = vec![b'x'; self.below(many)];
        for _ in 0..bytes.len() / 7 {
            let at = self.below(bytes.len());
            bytes[at] = b'a' + self.below(26) as u8;
        }
        bytes
    }
}
