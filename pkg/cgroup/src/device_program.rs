//! Compiles a [`DevicePolicy`] into a BPF program for cgroup v2, without I/O.
//!
//! The kernel calls the program for each mknod(2) and open(2) of a device with a `struct bpf_cgroup_dev_ctx` and lets
//! the access pass if the result is 1. The program is a row of blocks, one an exception: compare, and either go on to
//! the next block or return. About five instructions each, well below the verifier's limits for any real list.

use crate::devices::{Access, DevicePolicy, DeviceType, Exception};

// struct bpf_insn: 8 bits opcode, 4 bits each of destination and source register, 16 bits offset, 32 bits immediate.
const LOAD_WORD: u8 = 0x61; // BPF_LDX | BPF_MEM | BPF_W
const MOV_IMM: u8 = 0xb4; // BPF_ALU | BPF_MOV | BPF_K: upper half zeroed
const MOV_REG: u8 = 0xbc; // BPF_ALU | BPF_MOV | BPF_X
const AND_IMM: u8 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const SHIFT_RIGHT_IMM: u8 = 0x74; // BPF_ALU | BPF_RSH | BPF_K
const JUMP_NE_IMM: u8 = 0x56; // BPF_JMP32 | BPF_JNE | BPF_K
const JUMP_NE_REG: u8 = 0x5e; // BPF_JMP32 | BPF_JNE | BPF_X
const JUMP_EQ_IMM: u8 = 0x16; // BPF_JMP32 | BPF_JEQ | BPF_K
const EXIT: u8 = 0x95; // BPF_JMP | BPF_EXIT

const RESULT: u8 = 0;
const CONTEXT: u8 = 1; // free once the context has been read
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

// include/uapi/linux/bpf.h
const DEVCG_DEV_BLOCK: u32 = 1;
const DEVCG_DEV_CHAR: u32 = 2;

const fn instruction(opcode: u8, destination: u8, source: u8, offset: i16, immediate: u32) -> u64 {
    let bytes = [opcode, source << 4 | destination];
    let [low, high] = offset.to_ne_bytes();
    let [a, b, c, d] = immediate.to_ne_bytes();
    u64::from_ne_bytes([bytes[0], bytes[1], low, high, a, b, c, d])
}

const fn immediate(opcode: u8, destination: u8, immediate: u32) -> u64 {
    instruction(opcode, destination, 0, 0, immediate)
}

/// The program that enforces `policy`, as `struct bpf_insn` in their eight bytes.
pub fn device_program(policy: &DevicePolicy) -> Vec<u64> {
    // struct bpf_cgroup_dev_ctx { u32 access_type; u32 major; u32 minor; }, access_type = access << 16 | type
    let mut program = vec![
        instruction(LOAD_WORD, TYPE, CONTEXT, 0, 0),
        immediate(AND_IMM, TYPE, 0xffff),
        instruction(LOAD_WORD, ACCESS, CONTEXT, 0, 0),
        immediate(SHIFT_RIGHT_IMM, ACCESS, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for exception in &policy.exceptions {
        program.extend(block(exception, !policy.allow_by_default));
    }
    program.extend([immediate(MOV_IMM, RESULT, policy.allow_by_default.into()), immediate(EXIT, 0, 0)]);
    program
}

fn block(exception: &Exception, allow: bool) -> Vec<u64> {
    let devices = exception.devices;
    let typ = match devices.typ {
        DeviceType::Block => DEVCG_DEV_BLOCK,
        DeviceType::Char => DEVCG_DEV_CHAR,
    };
    let mut block = vec![immediate(JUMP_NE_IMM, TYPE, typ)];
    if exception.access != Access::ALL {
        let bits = exception.access.bits().into();
        block.extend([instruction(MOV_REG, CONTEXT, ACCESS, 0, 0), immediate(AND_IMM, CONTEXT, bits)]);
        // To allow, the exception has to cover all that is asked for; to deny, one bit in common is enough. (runc and
        // crun compare for equality in both cases, so a denied write passes when it is asked for together with a
        // read. cgroup v1 has it as here.)
        block.push(if allow {
            instruction(JUMP_NE_REG, CONTEXT, ACCESS, 0, 0)
        } else {
            immediate(JUMP_EQ_IMM, CONTEXT, 0)
        });
    }
    block.extend(devices.major.map(|major| immediate(JUMP_NE_IMM, MAJOR, major)));
    block.extend(devices.minor.map(|minor| immediate(JUMP_NE_IMM, MINOR, minor)));
    block.extend([immediate(MOV_IMM, RESULT, allow.into()), immediate(EXIT, 0, 0)]);
    // Every jump leads to the next block.
    let length = block.len();
    for (index, code) in block.iter_mut().enumerate() {
        let bytes = code.to_ne_bytes();
        if [JUMP_NE_IMM, JUMP_NE_REG, JUMP_EQ_IMM].contains(&bytes[0]) {
            let [low, high] = ((length - index - 1) as i16).to_ne_bytes();
            *code =
                u64::from_ne_bytes([bytes[0], bytes[1], low, high, bytes[4], bytes[5], bytes[6], bytes[7]]);
        }
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::devices::default_device_rules;

    /// Runs a program as the kernel would, for the opcodes that we emit; the type is `b` or `c`.
    fn allowed(program: &[u64], typ: char, access: &str, major: u32, minor: u32) -> bool {
        let typ = if typ == 'b' { DEVCG_DEV_BLOCK } else { DEVCG_DEV_CHAR };
        let context = [u32::from(access.parse::<Access>().unwrap().bits()) << 16 | typ, major, minor];
        let mut registers = [0u32; 6];
        let mut at = 0;
        loop {
            let bytes = program[at].to_ne_bytes();
            let (destination, source) = ((bytes[1] & 0xf) as usize, (bytes[1] >> 4) as usize);
            let offset = i16::from_ne_bytes([bytes[2], bytes[3]]);
            let immediate = u32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
            at += 1;
            let jump = match bytes[0] {
                LOAD_WORD => {
                    registers[destination] = context[offset as usize / 4];
                    false
                }
                MOV_IMM => {
                    registers[destination] = immediate;
                    false
                }
                MOV_REG => {
                    registers[destination] = registers[source];
                    false
                }
                AND_IMM => {
                    registers[destination] &= immediate;
                    false
                }
                SHIFT_RIGHT_IMM => {
                    registers[destination] >>= immediate;
                    false
                }
                JUMP_NE_IMM => registers[destination] != immediate,
                JUMP_NE_REG => registers[destination] != registers[source],
                JUMP_EQ_IMM => registers[destination] == immediate,
                EXIT => return registers[0] == 1,
                other => panic!("opcode {other:#x}"),
            };
            if jump {
                at += offset as usize;
            }
        }
    }

    fn compile(json: &str, defaults: bool) -> Vec<u64> {
        let mut rules: Vec<_> = serde_json::from_str(json).unwrap();
        if defaults {
            rules.extend(default_device_rules());
        }
        device_program(&DevicePolicy::compile(&rules).unwrap())
    }

    #[test]
    fn an_allow_list_allows_what_it_lists() {
        let program = compile(r#"[{"allow":false,"access":"rwm"}]"#, true);
        assert!(allowed(&program, 'c', "rw", 1, 3));
        assert!(allowed(&program, 'c', "r", 136, 77));
        assert!(allowed(&program, 'c', "m", 250, 1), "mknod of any device");
        assert!(allowed(&program, 'b', "m", 8, 0));
        assert!(!allowed(&program, 'b', "r", 8, 0));
        assert!(!allowed(&program, 'b', "rw", 1, 3), "block, not character");
        assert!(!allowed(&program, 'c', "rw", 1, 1), "/dev/mem");
        assert!(!allowed(&program, 'c', "rm", 10, 229), "partly covered is not covered");
    }

    #[test]
    fn a_deny_list_denies_each_access_it_lists() {
        let program = compile(
            r#"[{"allow":true,"access":"rwm"},{"allow":false,"type":"b","major":8,"access":"w"},
                {"allow":false,"type":"c","major":1,"minor":1,"access":"rwm"}]"#,
            false,
        );
        assert!(allowed(&program, 'b', "r", 8, 0));
        assert!(!allowed(&program, 'b', "w", 8, 0));
        assert!(!allowed(&program, 'b', "rw", 8, 0), "a read does not carry a denied write along");
        assert!(allowed(&program, 'b', "w", 9, 0));
        assert!(!allowed(&program, 'c', "r", 1, 1));
    }

    #[test]
    fn an_empty_list_denies_everything() {
        let program = compile("[]", false);
        assert_eq!(program.len(), 8);
        assert!(!allowed(&program, 'c', "r", 1, 3));
    }

    #[test]
    fn the_widest_list_stays_far_below_4096_instructions() {
        // Linux before 5.2 limits even root to 4096.
        let rules: Vec<String> = (0..500)
            .map(|n| format!(r#"{{"allow":true,"type":"c","major":{n},"minor":{n},"access":"r"}}"#))
            .collect();
        let program = compile(&format!("[{}]", rules.join(",")), false);
        assert_eq!(program.len(), 6 + 500 * 8 + 2);
        assert!(allowed(&program, 'c', "r", 499, 499));
        assert!(!allowed(&program, 'c', "r", 499, 498));
    }
}
