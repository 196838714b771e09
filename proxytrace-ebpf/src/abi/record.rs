//! What makes a structure a record: of C layout, without padding, and each pattern of bytes is a value.
//!
//! Only integers and arrays of them: userspace reads records from raw bytes.

/// Declares a record: C layout, and a proof at compile time that it holds no padding (whose bytes would be
/// uninitialised: the verifier refuses them in a map key, and they would leak kernel stack to userspace).
macro_rules! abi {
    ($($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $ty:ty,)+ })+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(C)]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty,)+ }

        const _: () = assert!(
            size_of::<$name>() == 0 $(+ size_of::<$ty>())+,
            concat!(stringify!($name), " holds padding")
        );

        impl $name {
            /// All zeroes.
            // SAFETY: integers and arrays of them: zero is a value of each.
            pub const ZERO: Self = unsafe { core::mem::zeroed() };
        }

        // SAFETY: C layout, integers and arrays of them, no padding as asserted above.
        unsafe impl $crate::abi::record::Abi for $name {}
    )+};
}

/// A record that crosses between kernel and userspace as bytes.
///
/// # Safety
/// Every pattern of its bytes is a valid value, and it has no padding.
pub unsafe trait Abi: Copy + 'static {}

// SAFETY: integers and an array of them.
unsafe impl Abi for u32 {}
// SAFETY: as above.
unsafe impl Abi for u64 {}
// SAFETY: as above.
unsafe impl Abi for [u8; 16] {}

pub(crate) use abi;
