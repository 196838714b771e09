//! How much stack the programs of the kernel half take. The oldest kernel allows the least, and it can be asked only in a
//! virtual machine; this reckons as it does.

use std::collections::{BTreeMap, BTreeSet};

use object::{
    File, Object as _, ObjectSection as _, ObjectSymbol as _, RelocationTarget, SectionIndex, SymbolKind,
};

/// What a chain of calls may take together (kernel/bpf/verifier.c, `check_max_stack_depth`).
const ALLOWED: u64 = 512;
/// To what a frame is rounded up there, an empty one too.
const FRAME: u64 = 32;

const INSTRUCTION: usize = 8;
/// Opcodes and parts of them (kernel documentation, "BPF instruction set").
const CLASS: u8 = 0x07;
const CLASS_LDX: u8 = 1;
const CLASS_ST: u8 = 2;
const CLASS_STX: u8 = 3;
const CLASSES_ALU: [u8; 2] = [4, 7];
const MOV_REGISTER: u8 = 0xbf;
const ADD_IMMEDIATE: u8 = 0x07;
const CALL: u8 = 0x85;
/// In place of the source register of a call: to a subprogram, and not to a helper.
const TO_SUBPROGRAM: u8 = 1;
/// The register that the frame begins below.
const FRAME_POINTER: u8 = 10;

/// Where a function begins: its section, and the offset there.
type Place = (usize, u64);

struct Function {
    name: String,
    /// How far below its frame pointer it reaches, in bytes.
    depth: u64,
    calls: BTreeSet<Place>,
}

impl Function {
    fn decode(file: &File<'_>, name: &str, place: Place, size: u64) -> Self {
        let section = file.section_by_index(SectionIndex(place.0)).expect("a symbol's section is there");
        let relocations: BTreeMap<_, _> = section.relocations().collect();
        let code =
            section.data_range(place.1, size).expect("the section is readable").expect("it holds the symbol");
        let (mut deepest, mut calls) = (0, BTreeSet::new());
        let mut frame_addresses = BTreeSet::from([FRAME_POINTER]);
        for (index, instruction) in code.chunks_exact(INSTRUCTION).enumerate() {
            let &[opcode, registers, low, high, ref immediate @ ..] = instruction else {
                unreachable!("eight bytes")
            };
            let (destination, source) = (registers & 15, registers >> 4);
            let offset = i64::from(i16::from_le_bytes([low, high]));
            let immediate = i64::from(i32::from_le_bytes(immediate.try_into().expect("four bytes")));
            let class = opcode & CLASS;
            let stores = [CLASS_ST, CLASS_STX].contains(&class) && destination == FRAME_POINTER;
            if stores || class == CLASS_LDX && source == FRAME_POINTER {
                deepest = deepest.min(offset);
            }
            if opcode == MOV_REGISTER && source == FRAME_POINTER {
                frame_addresses.insert(destination);
            } else if opcode == ADD_IMMEDIATE && frame_addresses.contains(&destination) {
                deepest = deepest.min(immediate);
            } else if (class == CLASS_LDX || CLASSES_ALU.contains(&class)) && destination != FRAME_POINTER {
                frame_addresses.remove(&destination);
            }
            if opcode == CALL && source == TO_SUBPROGRAM {
                let at = place.1 + (index * INSTRUCTION) as u64;
                let relative = |from: u64| from.checked_add_signed((immediate + 1) * INSTRUCTION as i64);
                let called = match relocations.get(&at).map(object::Relocation::target) {
                    Some(RelocationTarget::Symbol(symbol)) => {
                        let symbol = file.symbol_by_index(symbol).expect("a relocation's symbol is there");
                        let is_section = symbol.kind() == SymbolKind::Section;
                        let section = symbol.section_index().expect("it is defined here").0;
                        (section, if is_section { relative(0) } else { Some(symbol.address()) })
                    }
                    _ => (place.0, relative(at)),
                };
                calls.insert((called.0, called.1.expect("a call leads into its section")));
            }
        }
        Self { name: name.to_owned(), depth: deepest.unsigned_abs(), calls }
    }
}

/// The chain of calls from a function that takes the most, and how much that is.
fn worst(functions: &BTreeMap<Place, Function>, place: Place) -> (u64, Vec<String>) {
    let function = &functions[&place];
    let frame = function.depth.max(1).next_multiple_of(FRAME);
    let below = function.calls.iter().map(|called| worst(functions, *called)).max().unwrap_or_default();
    let mut chain = vec![format!("{} {}", function.name, function.depth)];
    chain.extend(below.1);
    (frame + below.0, chain)
}

#[test]
fn every_chain_of_calls_fits_the_stack_that_the_oldest_kernel_gives() {
    let file = File::parse(super::OBJECT).expect("the object is an ELF file");
    let functions: BTreeMap<Place, Function> = file
        .symbols()
        .filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0)
        .map(|symbol| {
            let place = (symbol.section_index().expect("it is defined here").0, symbol.address());
            let name = symbol.name().expect("it has a name");
            (place, Function::decode(&file, name, place, symbol.size()))
        })
        .collect();
    assert!(functions.len() > 40, "only {} functions are found", functions.len());
    assert!(functions.values().any(|function| function.depth > 100), "no frame is found");
    assert!(functions.values().any(|function| function.calls.len() > 2), "no calls are found");
    let too_deep: Vec<_> =
        functions.keys().map(|place| worst(&functions, *place)).filter(|worst| worst.0 > ALLOWED).collect();
    assert!(too_deep.is_empty(), "5.10 refuses more than {ALLOWED} bytes: {too_deep:#?}");
}
