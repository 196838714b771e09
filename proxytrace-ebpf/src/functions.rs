//! Functions of the kernel that programs call (kfuncs) where the kernel has them.
//!
//! The call names the function by its number in the running kernel's type information, and aya knows no such calls. So
//! the object has a placeholder for each, an instruction of its own, that userspace replaces before the object is loaded.

/// A call as an instruction: operation, registers (the second, 2, says that it is the kernel's), offset, and from bit 32
/// on the number of the function.
const fn call(number: u32) -> u64 {
    0x2085 | (number as u64) << 32
}

/// A jump to the next instruction.
const NOTHING: u64 = 0x05;

/// Calls `bpf_preempt_disable()` (from 6.10 on).
pub const PREEMPT_DISABLE: u64 = call(0x7072_6f01);
/// Calls `bpf_preempt_enable()`.
pub const PREEMPT_ENABLE: u64 = call(0x7072_6f02);

/// The placeholders, and what each calls. Only with all of them is any called: they belong together.
const ALL: [(u64, &str); 2] =
    [(PREEMPT_DISABLE, "bpf_preempt_disable"), (PREEMPT_ENABLE, "bpf_preempt_enable")];

/// Replaces the placeholders in `object` by calls of what `find` has a number for, or by nothing where it has not all.
pub fn resolve(object: &mut [u8], find: impl Fn(&str) -> Option<u32>) {
    let calls = ALL.map(|(_, name)| find(name).map(call));
    let has_all = calls.iter().all(Option::is_some);
    for instruction in object.as_chunks_mut::<8>().0 {
        let known = ALL.iter().position(|(placeholder, _)| u64::from_ne_bytes(*instruction) == *placeholder);
        if let Some(index) = known {
            *instruction = calls[index].filter(|_| has_all).unwrap_or(NOTHING).to_ne_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;

    const RETURN: u64 = 0x95;

    fn check(has: &[(&str, u32)], expected: [u64; 3]) {
        let mut object = [PREEMPT_DISABLE, PREEMPT_ENABLE, RETURN].map(u64::to_ne_bytes).concat();
        resolve(&mut object, |name| has.iter().find(|(known, _)| *known == name).map(|(_, number)| *number));
        assert_eq!(object, expected.map(u64::to_ne_bytes).concat());
    }

    #[test]
    fn a_call_gets_the_number_that_the_kernel_has_for_it() {
        let has = [("bpf_preempt_disable", 0x1234), ("bpf_preempt_enable", 0x1235)];
        check(&has, [0x0000_1234_0000_2085, 0x0000_1235_0000_2085, RETURN]);
    }

    #[test]
    fn without_one_of_them_none_is_called() {
        check(&[("bpf_preempt_disable", 0x1234)], [NOTHING, NOTHING, RETURN]);
    }
}
