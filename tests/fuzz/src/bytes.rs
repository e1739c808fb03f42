//! Choices read from a target's input. At the end of the input every choice is zero.

/// What is left of an input.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Begins.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Whether nothing is left.
    pub fn is_done(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes, fewer at the end.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(n.min(self.0.len()));
        self.0 = tail;
        head
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        self.take(1).first().copied().unwrap_or(0)
    }

    /// One of `n` choices.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n.max(1)
    }

    /// Heads or tails.
    pub fn coin(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// One of a list.
    pub fn pick<'b, T>(&mut self, from: &'b [T]) -> Option<&'b T> {
        from.get(self.below(from.len()))
    }

    fn raw(&mut self) -> u64 {
        let mut eight = [0; 8];
        let bytes = self.take(8);
        eight[..bytes.len()].copy_from_slice(bytes);
        u64::from_le_bytes(eight)
    }

    /// A number: mostly small, sometimes at the end of its range, sometimes anything.
    pub fn number(&mut self) -> u64 {
        match self.byte() {
            small @ 0..=199 => u64::from(small),
            200..=209 => u64::MAX,
            210..=219 => u64::MAX - u64::from(self.byte()),
            220..=229 => u64::from(u32::MAX) - u64::from(self.byte()),
            230..=239 => 1 << (self.byte() % 64),
            _ => self.raw(),
        }
    }

    /// A number near another: a few less or more, or far from it.
    pub fn near(&mut self, centre: u64) -> u64 {
        match self.byte() {
            more @ 0..=9 => centre.saturating_add(u64::from(more)),
            less @ 10..=19 => centre.saturating_sub(u64::from(less - 9)),
            20..=29 => u64::MAX,
            _ => centre,
        }
    }

    /// A piece with its length in front of it.
    pub fn piece(&mut self) -> &'a [u8] {
        let n = usize::from(self.byte()) | usize::from(self.byte()) << 8;
        self.take(n)
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// The bytes with a few of them changed.
    pub fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.below(4) {
            if bytes.is_empty() {
                return;
            }
            let at = (usize::from(self.byte()) | usize::from(self.byte()) << 8) % bytes.len();
            match self.below(4) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.byte(),
                2 => bytes.truncate(at),
                _ => {
                    let piece = self.piece().to_vec();
                    bytes.splice(at..at, piece);
                }
            }
        }
    }
}
