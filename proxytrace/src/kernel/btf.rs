//! Reads the kernel's type information (BTF): where members lie in structures. Pure: bytes in, offsets out.
//!
//! Own code, because aya keeps its reader private and the one maintained crate is LGPL, a burden in a static binary.
//! Format: Documentation/bpf/btf.rst of the kernel.

use std::collections::HashMap;

/// Where the kernel shows it.
pub const PATH: &str = "/sys/kernel/btf/vmlinux";

const MAGIC: u16 = 0xeb9f;

/// The kinds that matter here (include/uapi/linux/btf.h).
mod kind {
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const VOLATILE: u32 = 9;
    pub(super) const CONST: u32 = 10;
    pub(super) const RESTRICT: u32 = 11;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// Why the type information could not be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// It ends before what it announces.
    #[error("the BTF data ends too early")]
    Truncated,
    /// It is something else, or of the other byte order.
    #[error("not BTF data of this machine's byte order")]
    BadMagic,
    /// A newer kernel's type that the reader cannot skip, not knowing its length.
    #[error("the BTF data has a type of the unknown kind {0}")]
    UnknownKind(u32),
}

/// The type information of one kernel.
pub struct Btf<'a> {
    strings: &'a [u8],
    types: Vec<Type<'a>>,
    structures: HashMap<&'a [u8], usize>,
}

struct Type<'a> {
    /// Where its name is.
    name: u32,
    info: u32,
    /// The size in bytes, or the id of the type that this one refers to.
    size_or_type: u32,
    /// What follows the fixed part: members of a structure, values of an enum.
    rest: &'a [u8],
}

impl Type<'_> {
    fn kind(&self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    fn count(&self) -> usize {
        (self.info & 0xffff) as usize
    }

    /// Whether member offsets hold a bit-field size in their high byte.
    fn has_bitfields(&self) -> bool {
        self.info >> 31 == 1
    }
}

impl<'a> Btf<'a> {
    /// Reads `/sys/kernel/btf/vmlinux` or the like.
    ///
    /// # Errors
    /// What is wrong with the data.
    pub fn parse(data: &'a [u8]) -> Result<Self, Error> {
        if u16_at(data, 0)? != MAGIC {
            return Err(Error::BadMagic);
        }
        let header = u32_at(data, 4)? as usize;
        let section = |offset: usize| -> Result<&'a [u8], Error> {
            let start = header.checked_add(u32_at(data, offset)? as usize).ok_or(Error::Truncated)?;
            let end = start.checked_add(u32_at(data, offset + 4)? as usize).ok_or(Error::Truncated)?;
            data.get(start..end).ok_or(Error::Truncated)
        };
        let (mut rest, strings) = (section(8)?, section(16)?);

        // Type 0 is void and not in the data.
        let mut btf = Self {
            strings,
            types: vec![Type { name: 0, info: 0, size_or_type: 0, rest: &[] }],
            structures: HashMap::new(),
        };
        while !rest.is_empty() {
            let (name, info, size_or_type) = (u32_at(rest, 0)?, u32_at(rest, 4)?, u32_at(rest, 8)?);
            let mut ty = Type { name, info, size_or_type, rest: &[] };
            let length = rest_length(ty.kind(), ty.count())?;
            let end = 12 + length;
            ty.rest = rest.get(12..end).ok_or(Error::Truncated)?;
            rest = &rest[end..];
            if ty.kind() == kind::STRUCT {
                btf.structures.entry(btf.string(name)).or_insert(btf.types.len());
            }
            btf.types.push(ty);
        }
        Ok(btf)
    }

    /// The offset in bytes of `structure.member[.member…][+bytes]`, searching unnamed members as C does.
    #[must_use]
    pub fn offset(&self, path: &str) -> Option<u32> {
        let (path, more) = match path.split_once('+') {
            Some((path, more)) => (path, more.parse().ok()?),
            None => (path, 0),
        };
        let mut names = path.split('.');
        let mut id = *self.structures.get(names.next()?.as_bytes())?;
        let mut bits = 0_u32;
        for name in names {
            let (offset, member) = self.member(id, name.as_bytes(), &mut Vec::new())?;
            bits = bits.checked_add(offset)?;
            id = member;
        }
        if bits.is_multiple_of(8) { (bits / 8).checked_add(more) } else { None }
    }

    /// Whether any enum has this value: how the kernel says which map types and helpers it has.
    #[must_use]
    pub fn has_enum_value(&self, name: &str) -> bool {
        self.types.iter().filter(|ty| ty.kind() == kind::ENUM).any(|ty| {
            ty.rest
                .chunks_exact(8)
                .any(|value| u32_at(value, 0).is_ok_and(|at| self.string(at) == name.as_bytes()))
        })
    }

    /// Whether a process can be preempted while it runs the programs of a tracepoint, which holds for kernels from 7.0 on:
    /// they run under a fast SRCU of their own (kernel/tracepoint.c), of which the data of each CPU has a name here. Before
    /// 6.13 there was one as well, but of the slow kind and for idle processors.
    #[must_use]
    pub fn has_preemptible_tracepoints(&self) -> bool {
        self.has(kind::VAR, "tracepoint_srcu_srcu_data") && self.has(kind::FUNC, "init_srcu_struct_fast")
    }

    fn has(&self, kind: u32, name: &str) -> bool {
        self.types.iter().any(|ty| ty.kind() == kind && self.string(ty.name) == name.as_bytes())
    }

    /// The bit offset and the type of a member of the structure or union `id`. Those in `searched` do not have it, and are not
    /// searched again: in C no structure is in itself, but in damaged data each could be in itself many times.
    fn member(&self, id: usize, name: &[u8], searched: &mut Vec<usize>) -> Option<(u32, usize)> {
        /// No more are searched: a kernel has a handful of unnamed members in one structure.
        const MAX_SEARCHED: usize = 256;
        let ty = self.resolve(id)?;
        if searched.len() == MAX_SEARCHED
            || searched.contains(&id)
            || !matches!(ty.kind(), kind::STRUCT | kind::UNION)
        {
            return None;
        }
        searched.push(id);
        for member in ty.rest.chunks_exact(12) {
            let member_name = self.string(u32_at(member, 0).ok()?);
            let member_type = u32_at(member, 4).ok()? as usize;
            let mut offset = u32_at(member, 8).ok()?;
            if ty.has_bitfields() {
                offset &= 0x00ff_ffff;
            }
            if member_name == name {
                return Some((offset, member_type));
            }
            if member_name.is_empty()
                && let Some((inner, found)) = self.member(member_type, name, searched)
            {
                return Some((offset.checked_add(inner)?, found));
            }
        }
        None
    }

    /// The type behind names and qualifiers.
    fn resolve(&self, mut id: usize) -> Option<&Type<'a>> {
        // A cycle of typedefs is not possible in C, but in damaged data.
        for _ in 0..32 {
            let ty = self.types.get(id)?;
            match ty.kind() {
                kind::TYPEDEF | kind::VOLATILE | kind::CONST | kind::RESTRICT | kind::TYPE_TAG => {
                    id = ty.size_or_type as usize;
                }
                _ => return Some(ty),
            }
        }
        None
    }

    fn string(&self, at: u32) -> &'a [u8] {
        let tail = self.strings.get(at as usize..).unwrap_or_default();
        tail.split(|&byte| byte == 0).next().unwrap_or_default()
    }
}

/// How many bytes follow the fixed part of a type.
fn rest_length(kind: u32, count: usize) -> Result<usize, Error> {
    Ok(match kind {
        1 | kind::VAR | kind::DECL_TAG => 4, // 1: an integer
        // Pointer, forward declaration, qualifiers, function, float: nothing follows.
        2 | 7 | kind::TYPEDEF..=kind::RESTRICT | kind::FUNC | 16 | kind::TYPE_TAG => 0,
        kind::ARRAY => 12,
        kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => count * 12,
        kind::ENUM | kind::FUNC_PROTO => count * 8,
        unknown => return Err(Error::UnknownKind(unknown)),
    })
}

fn u16_at(data: &[u8], at: usize) -> Result<u16, Error> {
    let bytes = data.get(at..at + 2).ok_or(Error::Truncated)?;
    bytes.try_into().map(u16::from_ne_bytes).map_err(|_| Error::Truncated)
}

fn u32_at(data: &[u8], at: usize) -> Result<u32, Error> {
    let bytes = data.get(at..at + 4).ok_or(Error::Truncated)?;
    bytes.try_into().map(u32::from_ne_bytes).map_err(|_| Error::Truncated)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop, proptest};

    use super::{Btf, Error, MAGIC, kind};

    /// Puts BTF data together.
    struct Builder {
        strings: Vec<u8>,
        types: Vec<u8>,
    }

    impl Builder {
        fn new() -> Self {
            Self { strings: vec![0], types: Vec::new() }
        }

        fn name(&mut self, name: &str) -> u32 {
            if name.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend(name.bytes().chain([0]));
            at
        }

        fn ty(&mut self, name: &str, info: u32, size_or_type: u32, rest: &[u32]) {
            let name = self.name(name);
            for word in [name, info, size_or_type].iter().chain(rest) {
                self.types.extend(word.to_ne_bytes());
            }
        }

        fn build(&self) -> Vec<u8> {
            let (types, strings) = (self.types.len() as u32, self.strings.len() as u32);
            let mut data = MAGIC.to_ne_bytes().to_vec();
            data.extend([1, 0]);
            for word in [24, 0, types, types, strings] {
                data.extend(u32::to_ne_bytes(word));
            }
            data.extend(&self.types);
            data.extend(&self.strings);
            data
        }
    }

    /// `struct outer { int a; struct { const struct inner b; }; unsigned c : 4 }`, `struct inner { int x, y; }`
    fn sample() -> Vec<u8> {
        let mut builder = Builder::new();
        builder.ty("int", 1 << 24, 4, &[32]); // type 1
        let (x, y) = (builder.name("x"), builder.name("y"));
        builder.ty("inner", kind::STRUCT << 24 | 2, 8, &[x, 1, 0, y, 1, 32]); // 2
        builder.ty("", kind::CONST << 24, 2, &[]); // 3
        let b = builder.name("b");
        builder.ty("", kind::STRUCT << 24 | 1, 8, &[b, 3, 0]); // 4
        let (a, c) = (builder.name("a"), builder.name("c"));
        builder.ty("outer", 1 << 31 | kind::STRUCT << 24 | 3, 16, &[a, 1, 0, 0, 4, 32, c, 1, 4 << 24 | 100]); // 5
        let ring = builder.name("BPF_MAP_TYPE_RINGBUF");
        builder.ty("bpf_map_type", kind::ENUM << 24 | 1, 4, &[ring, 27]); // 6
        builder.ty("tracepoint_srcu_srcu_data", kind::VAR << 24, 1, &[0]); // 7
        builder.build()
    }

    #[test]
    fn members_are_found_in_unnamed_and_nested_structures() {
        let data = sample();
        let btf = Btf::parse(&data).unwrap();
        let check = |path: &str, offset: Option<u32>| assert_eq!(btf.offset(path), offset, "{path}");
        check("outer.a", Some(0));
        check("outer.b", Some(4));
        check("outer.b.y", Some(8));
        check("outer.b.y+8", Some(16));
        check("outer.c", None); // not at a whole byte
        check("outer.nothing", None);
        check("nothing.a", None);
        assert!(btf.has_enum_value("BPF_MAP_TYPE_RINGBUF"));
        assert!(!btf.has_enum_value("BPF_MAP_TYPE_ARENA"));
        assert!(
            btf.has(kind::VAR, "tracepoint_srcu_srcu_data")
                && !btf.has(kind::FUNC, "tracepoint_srcu_srcu_data")
        );
        assert!(!btf.has_preemptible_tracepoints(), "it is not of the fast kind");
    }

    #[test]
    fn members_beyond_all_memory_are_not_found() {
        let mut builder = Builder::new();
        builder.ty("int", 1 << 24, 4, &[32]); // type 1
        let (x, far) = (builder.name("x"), u32::MAX - 7);
        builder.ty("inner", kind::STRUCT << 24 | 1, 8, &[x, 1, far]); // 2
        let inner = builder.name("inner");
        builder.ty("outer", kind::STRUCT << 24 | 2, 16, &[0, 2, far, inner, 2, far]); // 3
        let data = builder.build();
        let btf = Btf::parse(&data).unwrap();
        assert_eq!(btf.offset("outer.x"), None);
        assert_eq!(btf.offset("outer.inner.x"), None);
        assert_eq!(btf.offset("inner.x"), Some(far / 8));
        assert_eq!(btf.offset("inner.x+4294967295"), None);
    }

    #[test]
    fn a_structure_that_is_in_itself_many_times_is_searched_once() {
        let mut builder = Builder::new();
        let members: Vec<u32> = (0..100).flat_map(|_| [0, 1, 0]).collect();
        builder.ty("sock", kind::STRUCT << 24 | 100, 8, &members); // type 1
        assert_eq!(Btf::parse(&builder.build()).unwrap().offset("sock.sk_state"), None);
    }

    #[test]
    fn damaged_data_is_an_error() {
        let mut data = sample();
        assert_eq!(Btf::parse(&data[..20]).err(), Some(Error::Truncated));
        assert_eq!(Btf::parse(&data[..data.len() - 1]).err(), Some(Error::Truncated));
        data[0] ^= 1;
        assert_eq!(Btf::parse(&data).err(), Some(Error::BadMagic));
    }

    #[test]
    fn the_running_kernel_has_every_member_that_the_programs_read() {
        let data = std::fs::read("/sys/kernel/btf/vmlinux").expect("this kernel has BTF");
        let btf = Btf::parse(&data).unwrap();
        proxytrace_ebpf::offsets::Offsets::resolve(|path| btf.offset(path)).unwrap();
    }

    proptest! {
        #[test]
        fn no_data_makes_it_panic(mut data in prop::collection::vec(any::<u8>(), 0..400), flips in prop::collection::vec((0usize..200, any::<u8>()), 0..8)) {
            let _ = Btf::parse(&data);
            data = sample();
            for (at, value) in flips {
                let at = at % data.len();
                data[at] = value;
            }
            if let Ok(btf) = Btf::parse(&data) {
                let _ = btf.offset("outer.b.y");
                let _ = btf.has_enum_value("x");
            }
        }
    }
}
