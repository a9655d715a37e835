//! What memory is made of, as a strip of characters: the same picture in every output for people.

/// What a strip shows, in its order: a character and what it is called. The last is the rest.
pub const PARTS: [(char, &str); 5] =
    [('█', "live"), ('▓', "free"), ('▒', "lazy free"), ('░', "swapped"), ('·', "reserved")];

/// Returns how many of `len` characters each part of `whole` takes.
pub fn lengths(parts: [u64; 4], whole: u64, len: u64) -> [u64; 5] {
    let mut lengths = [0; 5];
    let (mut sum, mut drawn) = (0_u64, 0);
    for (length, part) in lengths.iter_mut().zip(parts) {
        sum = sum.saturating_add(part);
        // Rounded in sum, so that the whole is as long as it should be.
        let end = u128::from(sum) * u128::from(len) * 2 / u128::from(whole.max(1));
        let end = u64::try_from(end).unwrap_or(u64::MAX).div_ceil(2).min(len);
        // What is there is seen.
        let end = if part > 0 { end.max((drawn + 1).min(len)) } else { end.max(drawn) };
        (*length, drawn) = (end - drawn, end);
    }
    lengths[4] = len - drawn;
    lengths
}

/// Returns the characters of a part that takes so many.
pub fn run(part: usize, length: u64) -> String {
    std::iter::repeat_n(PARTS[part].0, length as usize).collect()
}
