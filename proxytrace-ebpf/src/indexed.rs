//! Enumerations whose values are indices: into counters in the maps, and into a table of what is known of each value.

/// Declares such an enumeration. The indices are the numbers from 0 on, in the order of the declaration.
///
/// With `enum Name: About`, each variant holds the fields of its `About`: one that lacks a field does not compile, so nothing that
/// is known of a variant can be forgotten when one is added.
macro_rules! indexed {
    (
        $(#[$meta:meta])*
        pub enum $name:ident: $about:ident {
            $($(#[$variant_meta:meta])* $variant:ident { $($row:tt)+ })+
        }
    ) => {
        $crate::indexed::indexed! {
            $(#[$meta])*
            pub enum $name { $($(#[$variant_meta])* $variant,)+ }
        }

        impl $name {
            const TABLE: &'static [$about; Self::ALL.len()] = &[$($about { $($row)+ },)+];

            const fn about(self) -> &'static $about {
                &Self::TABLE[self as usize]
            }
        }
    };
    (
        $(#[$meta:meta])*
        pub enum $name:ident { $($(#[$variant_meta:meta])* $variant:ident,)+ }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u32)]
        pub enum $name { $($(#[$variant_meta])* $variant,)+ }

        impl $name {
            /// Every one of them, in the order of their indices.
            pub const ALL: [Self; [$(stringify!($variant)),+].len()] = [$(Self::$variant),+];

            /// The one with this index, if there is one.
            #[inline(always)]
            #[must_use]
            #[expect(unsafe_code, reason = "a comparison with each variant costs the verifier a branch")]
            pub const fn from_index(index: u32) -> Option<Self> {
                if index as usize >= Self::ALL.len() {
                    return None;
                }
                // SAFETY: the discriminants are the numbers from 0 on, as many as there are variants.
                Some(unsafe { core::mem::transmute::<u32, Self>(index) })
            }
        }
    };
}

pub(crate) use indexed;
