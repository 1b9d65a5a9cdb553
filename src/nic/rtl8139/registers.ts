/**
 * The register map of the RTL8139C and 8139C+ (their datasheets, "Register descriptions"), as one table. Each line: name, offset, how many
 * bytes (times how many registers, one behind the other), access, writable bits, value after reset, meaning. Access modes:
 *
 *   rw  holds what is written, within its writable bits     ro  written by the device only
 *   lk  like rw, but only while 9346CR.EEM is 11            w1  a written one clears the bit
 *   wo  acts when written, reads as zero                    +   behind the mode: the 8139C+ only
 *
 * In C+ mode the chip's places 0x10 to 0x2f have another meaning: DTCCR instead of TSD0 and TSD1, TNPDS and THPDS instead of the four
 * TSAD. Registers that act have their handlers in index.ts; they use the same table for their bits.
 * Not here: wake-up frame patterns, flash access, CardBus function registers (they read as zero), early receive interrupts.
 */

export const IDR = 0x00;
export const MAR = 0x08;
export const TSD = 0x10;
/** 8139C+: dump tally counter command, two words at TSD's place. */
export const DTCCR = 0x10;
export const TSAD = 0x20;
/** 8139C+: transmit normal and high priority descriptors, at TSAD's place. */
export const TNPDS = 0x20;
export const THPDS = 0x28;
export const RBSTART = 0x30;
export const CR = 0x37;
export const CAPR = 0x38;
export const CBR = 0x3a;
export const IMR = 0x3c;
export const ISR = 0x3e;
export const TCR = 0x40;
export const RCR = 0x44;
export const TCTR = 0x48;
export const MPC = 0x4c;
export const CR9346 = 0x50;
export const CONFIG1 = 0x52;
export const TIMERINT = 0x54;
export const MSR = 0x58;
export const CONFIG3 = 0x59;
export const CONFIG4 = 0x5a;
export const TSAD_STATUS = 0x60;
export const MII_BMCR = 0x62;
export const MII_BMSR = 0x64;
export const MII_ANAR = 0x66;
export const MII_ANLPAR = 0x68;
export const MII_ANER = 0x6a;
export const CSCR = 0x74;
export const CONFIG5 = 0xd8;
export const TPPOLL = 0xd9;
export const CPCR = 0xe0;
export const RDSAR = 0xe4;

export const CR_BUFE = 1 << 0;
export const CR_TE = 1 << 2;
export const CR_RE = 1 << 3;
export const CR_RST = 1 << 4;

export const INT_ROK = 1 << 0;
export const INT_RER = 1 << 1;
export const INT_TOK = 1 << 2;
export const INT_TER = 1 << 3;
/** Classic: receive buffer overflow; C+: no receive descriptor. */
export const INT_RXOVW = 1 << 4;
/** Packet underrun or link change. */
export const INT_LINK = 1 << 5;
/** C+: the transmitter found no descriptor of its own. */
export const INT_TDU = 1 << 7;
export const INT_SWINT = 1 << 8;
export const INT_TIMEOUT = 1 << 14;
export const INT_SERR = 1 << 15;

export const TSD_SIZE = 0x1fff;
export const TSD_OWN = 1 << 13;
export const TSD_TUN = 1 << 14;
export const TSD_TOK = 1 << 15;
export const TSD_TABT = 1 << 30;

export const TCR_CRC = 1 << 16;
export const TCR_LBK_SHIFT = 17;
export const LBK_LOOPBACK = 3;

export const RCR_AAP = 1 << 0;
export const RCR_APM = 1 << 1;
export const RCR_AM = 1 << 2;
export const RCR_AB = 1 << 3;
export const RCR_AER = 1 << 5;
export const RCR_WRAP = 1 << 7;
export const RCR_RBLEN_SHIFT = 11;

export const EEM_SHIFT = 6;
export const EEM_AUTOLOAD = 1;
export const EEM_PROGRAM = 2;
export const EEM_CONFIG = 3;
export const MSR_LINKB = 1 << 2;
export const MSR_SPEED_10 = 1 << 3;
export const TPPOLL_FSWINT = 1 << 0;
export const TPPOLL_NPQ = 1 << 6;
export const TPPOLL_HPQ = 1 << 7;
export const CPCR_TX = 1 << 0;
export const CPCR_RX = 1 << 1;
export const CPCR_RX_CHECKSUM = 1 << 5;
export const CPCR_RX_VLAN = 1 << 6;
export const DTCCR_DUMP = 1 << 3;

export const REGISTER_BYTES = 256;
/** C+ descriptors: 16 bytes, at most 64 in a ring. */
export const DESCRIPTOR_BYTES = 16;
export const RING_MAX = 64;

const TABLE = `
IDR0      0x00 4     rw  ffffffff 00000000 station address, first four bytes
IDR4      0x04 4     rw  0000ffff 00000000 station address, last two bytes
MAR0      0x08 4*2   rw  ffffffff 00000000 multicast hash, 64 bits
TSD0      0x10 4*4   rw  003f3fff 00002000 transmit status of descriptors 0 to 3; C+: tally counter dump
TSAD0     0x20 4*4   rw  ffffffff 00000000 transmit start addresses; C+: ring addresses
RBSTART   0x30 4     rw  ffffffff 00000000 receive buffer start address
ERBCR     0x34 2     ro  00000000 00000000 early receive byte count
ERSR      0x36 1     ro  00000000 00000000 early receive status
CR        0x37 1     rw  0000000c 00000001 command: reset, receiver and transmitter enable, buffer empty
CAPR      0x38 2     rw  0000ffff 0000fff0 current address of packet read, less 16
CBR       0x3a 2     ro  00000000 00000000 current buffer address: where the device writes next
IMR       0x3c 2     rw  0000e1ff 00000000 interrupt mask
ISR       0x3e 2     w1  0000e1ff 00000000 interrupt status
TCR       0x40 4     rw  030f07f0 74800000 transmit configuration and hardware version
RCR       0x44 4     rw  0f03ffbf 00000000 receive configuration
TCTR      0x48 4     rw  00000000 00000000 timer count, 33 MHz; any write sets it to zero
MPC       0x4c 4     rw  00000000 00000000 missed packets; any write sets it to zero
9346CR    0x50 1     rw  000000ce 00000000 EEPROM mode and pins
CONFIG0   0x51 1     ro  00000000 00000000 boot ROM and medium
CONFIG1   0x52 1     lk  000000f3 0000000d driver loaded, LEDs, power management
TIMERINT  0x54 4     rw  ffffffff 00000000 timer interrupt: TCTR's value that raises TimeOut; zero: never
MSR       0x58 1     rw  000000c0 00000014 media status: flow control, speed, link
CONFIG3   0x59 1     lk  00000070 00000000 parameters, magic packet, link-up wake-up
CONFIG4   0x5a 1     lk  000000f7 00000000 wake-up pins and FIFO clearing
MULINT    0x5c 2     rw  00000fff 00000000 multiple interrupt select: early receive
RERID     0x5e 1     ro  00000000 00000010 PCI revision of the chip's core
TSAD      0x60 2     ro  00000000 0000000f transmit status of all four descriptors
BMCR      0x62 2     rw  0000ffff 00001000 PHY control (IEEE 802.3 clause 22)
BMSR      0x64 2     ro  00000000 00007809 PHY status
ANAR      0x66 2     rw  0000ffff 000005e1 autonegotiation advertisement
ANLPAR    0x68 2     ro  00000000 00000000 link partner's ability
ANER      0x6a 2     ro  00000000 00000000 autonegotiation expansion
DIS       0x6c 2     ro  00000000 00000000 disconnections
FCSC      0x6e 2     ro  00000000 00000000 false carriers
NWAYTR    0x70 2     rw  00000080 00000000 negotiation test
REC       0x72 2     ro  00000000 00000000 receive errors of the PHY
CSCR      0x74 2     rw  000003e5 000003c0 CS configuration: heart beat, jabber, connection status
PHY1_PARM 0x78 4     rw  ffffffff 00000000 PHY parameters
TW_PARM   0x7c 4     rw  ffffffff 00000000 twister parameters
PHY2_PARM 0x80 1     rw  000000ff 00000000 PHY parameters
CONFIG5   0xd8 1     rw  0000007f 00000000 wake-up frames, LAN wake; not locked
TPPOLL    0xd9 1     wo+ 000000c1 00000000 transmit polling: high, normal priority, software interrupt
CPCR      0xe0 2     rw+ 0000027b 00000000 C+ command: receiver, transmitter, checksums, VLAN
RDSAR     0xe4 4*2   rw+ ffffffff 00000000 receive descriptor start address
ETTHR     0xec 1     rw+ 0000003f 00000000 early transmit threshold
`;

export type RegisterAccess = 'rw' | 'lk' | 'ro' | 'w1' | 'wo';

export interface RegisterInfo {
  readonly name: string;
  readonly offset: number;
  /** Bytes of one, and how many there are. */
  readonly size: number;
  readonly count: number;
  readonly access: RegisterAccess;
  /** Only the 8139C+ has it. */
  readonly plus: boolean;
  readonly writable: number;
  readonly reset: number;
  readonly meaning: string;
}

function parseTable(text: string): RegisterInfo[] {
  return text
    .trim()
    .split('\n')
    .map((line) => {
      const [name, offset, bytes, access, writable, reset, ...meaning] = line.split(/\s+/);
      const [size, count] = bytes.split('*');
      return {
        name,
        offset: Number(offset),
        size: Number(size),
        count: Number(count ?? 1),
        access: access.slice(0, 2) as RegisterAccess,
        plus: access.endsWith('+'),
        writable: Number.parseInt(writable, 16),
        reset: Number.parseInt(reset, 16),
        meaning: meaning.join(' '),
      };
    });
}

export const REGISTERS: readonly RegisterInfo[] = parseTable(TABLE);

/** A register's kind by the offset of its first byte; 0: none starts here. */
export const KIND_NONE = 0;
export const KIND_RW = 1;
export const KIND_LOCKED = 2;
export const KIND_RO = 3;
export const KIND_W1 = 4;
export const KIND_WO = 5;

export interface RegisterMap {
  /** By byte offset: where the register starts that has this byte (the byte itself where there is none). */
  readonly start: Uint8Array;
  /** By a register's first byte: KIND_*, bytes, writable bits. */
  readonly kind: Uint8Array;
  readonly size: Uint8Array;
  readonly writable: Int32Array;
  /** All 256 bytes after power-on. */
  readonly reset: Uint8Array;
}

function buildMap(plus: boolean): RegisterMap {
  const map: RegisterMap = {
    start: Uint8Array.from({ length: REGISTER_BYTES }, (_, offset) => offset),
    kind: new Uint8Array(REGISTER_BYTES),
    size: new Uint8Array(REGISTER_BYTES).fill(1),
    writable: new Int32Array(REGISTER_BYTES),
    reset: new Uint8Array(REGISTER_BYTES),
  };
  const kinds: Record<RegisterAccess, number> = {
    rw: KIND_RW,
    lk: KIND_LOCKED,
    ro: KIND_RO,
    w1: KIND_W1,
    wo: KIND_WO,
  };
  for (const register of REGISTERS) {
    if (register.plus && !plus) continue;
    for (let i = 0; i < register.count; i++) {
      const offset = register.offset + i * register.size;
      map.kind[offset] = kinds[register.access];
      map.size[offset] = register.size;
      map.writable[offset] = register.writable;
      for (let b = 0; b < register.size; b++) {
        map.start[offset + b] = offset;
        map.reset[offset + b] = register.reset >>> (8 * b);
      }
    }
  }
  // The 8139C is the same core without C+; TCR tells its version (bits 30 to 26, 23, 22).
  if (!plus) map.reset[TCR + 2] = 0;
  return map;
}

export const PLUS_MAP: RegisterMap = buildMap(true);
export const CLASSIC_MAP: RegisterMap = buildMap(false);
