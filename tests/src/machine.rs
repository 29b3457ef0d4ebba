//! Tiny programs that make the system calls they are told to: what a libc would refuse, round or hide reaches the kernel as it is.
//!
//! Each is a static ELF file of a few hundred bytes that makes its calls in order, writes the raw results to stdout and ends
//! with 0.

/// One system call: its number and arguments.
pub type Call = (u64, [u64; 6]);

const WRITE: u64 = 1;
const EXIT_GROUP: u64 = 231;
const WRITE_32: u32 = 4;
const EXIT_GROUP_32: u32 = 252;

/// A program for x86_64 that makes the calls; the results are 64 bits each.
pub fn x86_64(calls: &[Call]) -> Vec<u8> {
    let size = 8 * calls.len() as u32;
    let mut code = vec![0x48, 0x81, 0xec];
    code.extend((size + 128).to_le_bytes());
    for (index, (number, args)) in calls.iter().enumerate() {
        call_64(&mut code, *number, args);
        // mov [rsp + disp32], rax
        code.extend([0x48, 0x89, 0x84, 0x24]);
        code.extend((8 * index as u32).to_le_bytes());
    }
    load_64(&mut code, WRITE, &[1, 0, u64::from(size), 0, 0, 0]);
    // mov rsi, rsp; syscall
    code.extend([0x48, 0x89, 0xe6, 0x0f, 0x05]);
    call_64(&mut code, EXIT_GROUP, &[0; 6]);
    elf_64(&code)
}

/// movabs into rax, rdi, rsi, rdx, r10, r8, r9
fn load_64(code: &mut Vec<u8>, number: u64, args: &[u64; 6]) {
    let registers: [[u8; 2]; 7] =
        [[0x48, 0xb8], [0x48, 0xbf], [0x48, 0xbe], [0x48, 0xba], [0x49, 0xba], [0x49, 0xb8], [0x49, 0xb9]];
    for (register, value) in registers.iter().zip(std::iter::once(&number).chain(args)) {
        code.extend(register);
        code.extend(value.to_le_bytes());
    }
}

fn call_64(code: &mut Vec<u8>, number: u64, args: &[u64; 6]) {
    load_64(code, number, args);
    code.extend([0x0f, 0x05]);
}

fn elf_64(code: &[u8]) -> Vec<u8> {
    const BASE: u64 = 0x40_0000;
    const HEADERS: u64 = 64 + 56;
    let size = HEADERS + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [BASE + HEADERS, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([0, 0, 0, 0, 64, 0, 56, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // PT_LOAD, readable and executable
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, BASE, BASE, size, size, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

/// A program for i386 that makes the calls by `int 0x80`; the results are 32 bits each.
pub fn i386(calls: &[(u32, [u32; 5])]) -> Vec<u8> {
    let size = 4 * calls.len() as u32;
    let mut code = vec![0x81, 0xec];
    code.extend((size + 128).to_le_bytes());
    for (index, (number, args)) in calls.iter().enumerate() {
        load_32(&mut code, *number, args);
        // int 0x80; mov [esp + disp32], eax
        code.extend([0xcd, 0x80, 0x89, 0x84, 0x24]);
        code.extend((4 * index as u32).to_le_bytes());
    }
    load_32(&mut code, WRITE_32, &[1, 0, size, 0, 0]);
    // mov ecx, esp; int 0x80
    code.extend([0x89, 0xe1, 0xcd, 0x80]);
    load_32(&mut code, EXIT_GROUP_32, &[0; 5]);
    code.extend([0xcd, 0x80]);
    elf_32(&code)
}

/// mov into eax, ebx, ecx, edx, esi, edi
fn load_32(code: &mut Vec<u8>, number: u32, args: &[u32; 5]) {
    for (register, value) in
        [0xb8, 0xbb, 0xb9, 0xba, 0xbe, 0xbf].iter().zip(std::iter::once(&number).chain(args))
    {
        code.push(*register);
        code.extend(value.to_le_bytes());
    }
}

fn elf_32(code: &[u8]) -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    let size = HEADERS + code.len() as u32;
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([2, 0, 3, 0, 1, 0, 0, 0]);
    for word in [BASE + HEADERS, 52, 0, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend([52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    for word in [1, 0, BASE, BASE, size, size, 5, 0x1000] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

/// The results that a program of [`x86_64`] wrote.
pub fn results_64(bytes: &[u8]) -> Vec<i64> {
    bytes.chunks_exact(8).map(|word| i64::from_le_bytes(word.try_into().unwrap_or_default())).collect()
}

/// The results that a program of [`i386`] wrote.
pub fn results_32(bytes: &[u8]) -> Vec<i32> {
    bytes.chunks_exact(4).map(|word| i32::from_le_bytes(word.try_into().unwrap_or_default())).collect()
}
