/**
 * The register map of the Intel 82540EM (8254x software developer's manual, chapter 13), as one table. Each line: name, offset, how many
 * (each 4 bytes apart, or 8 with `*2`), access, writable bits, value after reset, meaning. Access modes:
 *
 *   rw  holds what is written, within its writable bits     ro  written by the device only
 *   rc  statistics: a read clears it                        wo  acts when written, reads as zero
 *   =X  another address of register X (the 82542's places)
 *
 * SWSM is not the 82540EM's: later chips of the family have it, and drivers for all of them (U-Boot's) take its SWESMBI before they read the EEPROM, on
 * this chip too, and give up where it does not hold. QEMU's e1000 keeps what is written there as well.
 *
 * Registers that act when read or written have their handlers in index.ts; they use the same table for their bits.
 * Not here: flow control frames, TBI (fiber) and SerDes, the packet buffer as memory (reads as zero).
 */

export const CTRL = 0x0000;
export const STATUS = 0x0008;
export const EECD = 0x0010;
export const EERD = 0x0014;
export const CTRL_EXT = 0x0018;
export const MDIC = 0x0020;
export const VET = 0x0038;
export const ICR = 0x00c0;
export const ITR = 0x00c4;
export const ICS = 0x00c8;
export const IMS = 0x00d0;
export const IMC = 0x00d8;
export const RCTL = 0x0100;
export const TCTL = 0x0400;
export const PBA = 0x1000;
export const RDBAL = 0x2800;
export const RDBAH = 0x2804;
export const RDLEN = 0x2808;
export const RDH = 0x2810;
export const RDT = 0x2818;
export const RDTR = 0x2820;
export const RXDCTL = 0x2828;
export const RADV = 0x282c;
export const RSRPD = 0x2c00;
export const TDBAL = 0x3800;
export const TDBAH = 0x3804;
export const TDLEN = 0x3808;
export const TDH = 0x3810;
export const TDT = 0x3818;
export const TIDV = 0x3820;
export const TXDCTL = 0x3828;
export const TADV = 0x382c;
export const RXCSUM = 0x5000;
export const MTA = 0x5200;
export const RAL = 0x5400;
export const RAH = 0x5404;
export const VFTA = 0x5600;
export const WUC = 0x5800;
export const WUFC = 0x5808;
export const WUS = 0x5810;

export const CTRL_FD = 1 << 0;
export const CTRL_SLU = 1 << 6;
export const CTRL_SPEED_SHIFT = 8;
export const CTRL_FRCSPD = 1 << 11;
export const CTRL_FRCDPX = 1 << 12;
export const CTRL_RST = 1 << 26;
export const CTRL_VME = 1 << 30;
export const CTRL_PHY_RST = 1 << 31;
export const STATUS_FD = 1 << 0;
export const STATUS_LU = 1 << 1;
export const STATUS_TXOFF = 1 << 4;
export const STATUS_SPEED_SHIFT = 6;
export const STATUS_ASDV_SHIFT = 8;
export const CTRL_EXT_ASDCHK = 1 << 12;
export const CTRL_EXT_EE_RST = 1 << 13;

export const INT_TXDW = 1 << 0;
export const INT_TXQE = 1 << 1;
export const INT_LSC = 1 << 2;
export const INT_RXSEQ = 1 << 3;
export const INT_RXDMT0 = 1 << 4;
export const INT_RXO = 1 << 6;
export const INT_RXT0 = 1 << 7;
export const INT_MDAC = 1 << 9;
export const INT_TXD_LOW = 1 << 15;
export const INT_SRPD = 1 << 16;

export const RCTL_EN = 1 << 1;
export const RCTL_SBP = 1 << 2;
export const RCTL_UPE = 1 << 3;
export const RCTL_MPE = 1 << 4;
export const RCTL_LPE = 1 << 5;
export const RCTL_LBM_SHIFT = 6;
export const RCTL_RDMTS_SHIFT = 8;
export const RCTL_MO_SHIFT = 12;
export const RCTL_BAM = 1 << 15;
export const RCTL_BSIZE_SHIFT = 16;
export const RCTL_VFE = 1 << 18;
export const RCTL_CFIEN = 1 << 19;
export const RCTL_CFI = 1 << 20;
export const RCTL_BSEX = 1 << 25;
export const RCTL_SECRC = 1 << 26;
export const TCTL_EN = 1 << 1;
export const TCTL_PSP = 1 << 3;
export const RXCSUM_PCSS = 0xff;
export const RXCSUM_IPOFL = 1 << 8;
export const RXCSUM_TUOFL = 1 << 9;
export const RAH_AV = 1 << 31;
export const RAH_ASEL_SHIFT = 16;

/** Receive address registers, multicast and VLAN table words. */
export const RECEIVE_ADDRESSES = 16;
export const TABLE_WORDS = 128;
/** The rings' descriptors are 16 bytes, and ring lengths multiples of 128 bytes. */
export const DESCRIPTOR_BYTES = 16;
/** Registers end here; BAR 0 goes on to 128 KiB and reads as zero. */
export const REGISTER_BYTES = 0x6000;

const TABLE = `
CTRL      0x00000 1    rw fbdffbfd 00140241 device control; RST and PHY_RST clear themselves
CTRL_DUP  0x00004 1    =CTRL                device control again
STATUS    0x00008 1    ro 00000000 00000283 device status: link, speed, duplex
EECD      0x00010 1    rw 00000077 00000110 EEPROM pins, for bit-banging
EERD      0x00014 1    rw 0000ff01 00000000 EEPROM read
CTRL_EXT  0x00018 1    rw 00f0fff0 00000000 extended control, software pins
FLA       0x0001c 1    rw 00000000 00000000 flash access: there is no flash
MDIC      0x00020 1    rw 2fffffff 10000000 PHY register access
FCAL      0x00028 1    rw ffffffff 00c28001 flow control address, low
FCAH      0x0002c 1    rw 0000ffff 00000100 flow control address, high
FCT       0x00030 1    rw 0000ffff 00008808 flow control type
VET       0x00038 1    rw 0000ffff 00000000 VLAN EtherType; 0x8100 with init-vet
RAL_A     0x00040 16*2 =RAL                 receive address, low
RAH_A     0x00044 16*2 =RAH                 receive address, high
ICR       0x000c0 1    rw 0001ffff 00000000 interrupt cause, cleared by reading or by writing ones
ITR       0x000c4 1    rw 0000ffff 00000000 interrupt throttling, 256 ns units
ICS       0x000c8 1    wo 0001ffff 00000000 interrupt cause set
IMS       0x000d0 1    rw 0001ffff 00000000 interrupt mask set
IMC       0x000d8 1    wo 0001ffff 00000000 interrupt mask clear
RCTL      0x00100 1    rw 07fffffe 00000000 receive control
RDTR_A    0x00108 1    =RDTR                receive delay
RDBAL_A   0x00110 1    =RDBAL               receive ring base, low
RDBAH_A   0x00114 1    =RDBAH               receive ring base, high
RDLEN_A   0x00118 1    =RDLEN               receive ring length
RDH_A     0x00120 1    =RDH                 receive head
RDT_A     0x00128 1    =RDT                 receive tail
FCTTV     0x00170 1    rw 0000ffff 00000000 flow control transmit timer
TXCW      0x00178 1    rw ffffffff 00000000 transmit configuration word (TBI)
RXCW      0x00180 1    ro 00000000 00000000 receive configuration word (TBI)
MTA_A     0x00200 128  =MTA                 multicast table
TCTL      0x00400 1    rw 01fffffa 00000000 transmit control
TIPG      0x00410 1    rw 3fffffff 0060200a inter-packet gap
TDBAL_A   0x00420 1    =TDBAL               transmit ring base, low
TDBAH_A   0x00424 1    =TDBAH               transmit ring base, high
TDLEN_A   0x00428 1    =TDLEN               transmit ring length
TDH_A     0x00430 1    =TDH                 transmit head
TDT_A     0x00438 1    =TDT                 transmit tail
TIDV_A    0x00440 1    =TIDV                transmit interrupt delay
TBT       0x00448 1    rw ffffffff 00000000 transmit burst timer
AIFS      0x00458 1    rw 0000ffff 00000000 adaptive inter-frame spacing
VFTA_A    0x00600 128  =VFTA                VLAN table
LEDCTL    0x00e00 1    rw ffffffff 07068302 LED control
PBA       0x01000 1    rw 0000ffff 00100030 packet buffer allocation, KiB for receive and transmit
FCRTL     0x02160 1    rw 8000fff8 00000000 flow control threshold, low
FCRTH     0x02168 1    rw 0000fff8 00000000 flow control threshold, high
RDFH      0x02410 1    rw 00001fff 00000000 receive FIFO head
RDFT      0x02418 1    rw 00001fff 00000000 receive FIFO tail
RDFHS     0x02420 1    rw 00001fff 00000000 receive FIFO head saved
RDFTS     0x02428 1    rw 00001fff 00000000 receive FIFO tail saved
RDFPC     0x02430 1    rw 00001fff 00000000 receive FIFO packet count
RDBAL     0x02800 1    rw fffffff0 00000000 receive ring base, low
RDBAH     0x02804 1    rw ffffffff 00000000 receive ring base, high
RDLEN     0x02808 1    rw 000fff80 00000000 receive ring length in bytes
RDH       0x02810 1    rw 0000ffff 00000000 receive head: the device's next descriptor
RDT       0x02818 1    rw 0000ffff 00000000 receive tail: the first descriptor that is not the device's
RDTR      0x02820 1    rw 0000ffff 00000000 receive delay, 1.024 us units; FPD flushes
RXDCTL    0x02828 1    rw 013f3f3f 00010000 receive descriptor control
RADV      0x0282c 1    rw 0000ffff 00000000 receive absolute delay, 1.024 us units
RSRPD     0x02c00 1    rw 00000fff 00000000 size below which a received packet is small
TDFH      0x03410 1    rw 00001fff 00000000 transmit FIFO head
TDFT      0x03418 1    rw 00001fff 00000000 transmit FIFO tail
TDFHS     0x03420 1    rw 00001fff 00000000 transmit FIFO head saved
TDFTS     0x03428 1    rw 00001fff 00000000 transmit FIFO tail saved
TDFPC     0x03430 1    rw 00001fff 00000000 transmit FIFO packet count
TDBAL     0x03800 1    rw fffffff0 00000000 transmit ring base, low
TDBAH     0x03804 1    rw ffffffff 00000000 transmit ring base, high
TDLEN     0x03808 1    rw 000fff80 00000000 transmit ring length in bytes
TDH       0x03810 1    rw 0000ffff 00000000 transmit head: the oldest descriptor that is not completed
TDT       0x03818 1    rw 0000ffff 00000000 transmit tail: the first descriptor that is not the device's
TIDV      0x03820 1    rw 0000ffff 00000000 transmit delay, 1.024 us units
TXDCTL    0x03828 1    rw ff3f3f3f 00000000 transmit descriptor control
TADV      0x0382c 1    rw 0000ffff 00000000 transmit absolute delay, 1.024 us units
TSPMT     0x03830 1    rw ffffffff 01000400 TCP segmentation pad and threshold
TARC0     0x03840 1    rw ffffffff 00000403 transmit arbitration
CRCERRS   0x04000 1    rc 00000000 00000000 CRC errors
ALGNERRC  0x04004 1    rc 00000000 00000000 alignment errors
SYMERRS   0x04008 1    rc 00000000 00000000 symbol errors
RXERRC    0x0400c 1    rc 00000000 00000000 receive errors
MPC       0x04010 1    rc 00000000 00000000 missed packets: no descriptor
SCC       0x04014 1    rc 00000000 00000000 single collisions
ECOL      0x04018 1    rc 00000000 00000000 excessive collisions
MCC       0x0401c 1    rc 00000000 00000000 multiple collisions
LATECOL   0x04020 1    rc 00000000 00000000 late collisions
COLC      0x04028 1    rc 00000000 00000000 collisions
DC        0x04030 1    rc 00000000 00000000 deferrals
TNCRS     0x04034 1    rc 00000000 00000000 transmits without carrier sense
SEC       0x04038 1    rc 00000000 00000000 sequence errors
CEXTERR   0x0403c 1    rc 00000000 00000000 carrier extension errors
RLEC      0x04040 1    rc 00000000 00000000 receive length errors
XONRXC    0x04048 1    rc 00000000 00000000 XON received
XONTXC    0x0404c 1    rc 00000000 00000000 XON sent
XOFFRXC   0x04050 1    rc 00000000 00000000 XOFF received
XOFFTXC   0x04054 1    rc 00000000 00000000 XOFF sent
FCRUC     0x04058 1    rc 00000000 00000000 flow control frames of an unknown kind
PRC64     0x0405c 1    rc 00000000 00000000 packets received, 64 bytes with FCS
PRC127    0x04060 1    rc 00000000 00000000 packets received, to 127
PRC255    0x04064 1    rc 00000000 00000000 packets received, to 255
PRC511    0x04068 1    rc 00000000 00000000 packets received, to 511
PRC1023   0x0406c 1    rc 00000000 00000000 packets received, to 1023
PRC1522   0x04070 1    rc 00000000 00000000 packets received, longer
GPRC      0x04074 1    rc 00000000 00000000 good packets received
BPRC      0x04078 1    rc 00000000 00000000 broadcast packets received
MPRC      0x0407c 1    rc 00000000 00000000 multicast packets received
GPTC      0x04080 1    rc 00000000 00000000 good packets sent
GORCL     0x04088 1    ro 00000000 00000000 good octets received, low
GORCH     0x0408c 1    rc 00000000 00000000 good octets received, high: a read clears both
GOTCL     0x04090 1    ro 00000000 00000000 good octets sent, low
GOTCH     0x04094 1    rc 00000000 00000000 good octets sent, high: a read clears both
RNBC      0x040a0 1    rc 00000000 00000000 times that no receive buffer was there
RUC       0x040a4 1    rc 00000000 00000000 frames too short
RFC       0x040a8 1    rc 00000000 00000000 fragments: too short, bad CRC
ROC       0x040ac 1    rc 00000000 00000000 frames too long
RJC       0x040b0 1    rc 00000000 00000000 jabber: too long, bad CRC
MGTPRC    0x040b4 1    rc 00000000 00000000 management packets received
MGTPDC    0x040b8 1    rc 00000000 00000000 management packets dropped
MGTPTC    0x040bc 1    rc 00000000 00000000 management packets sent
TORL      0x040c0 1    ro 00000000 00000000 all octets received, low
TORH      0x040c4 1    rc 00000000 00000000 all octets received, high: a read clears both
TOTL      0x040c8 1    ro 00000000 00000000 all octets sent, low
TOTH      0x040cc 1    rc 00000000 00000000 all octets sent, high: a read clears both
TPR       0x040d0 1    rc 00000000 00000000 all packets received
TPT       0x040d4 1    rc 00000000 00000000 all packets sent
PTC64     0x040d8 1    rc 00000000 00000000 packets sent, 64 bytes with FCS
PTC127    0x040dc 1    rc 00000000 00000000 packets sent, to 127
PTC255    0x040e0 1    rc 00000000 00000000 packets sent, to 255
PTC511    0x040e4 1    rc 00000000 00000000 packets sent, to 511
PTC1023   0x040e8 1    rc 00000000 00000000 packets sent, to 1023
PTC1522   0x040ec 1    rc 00000000 00000000 packets sent, longer
MPTC      0x040f0 1    rc 00000000 00000000 multicast packets sent
BPTC      0x040f4 1    rc 00000000 00000000 broadcast packets sent
TSCTC     0x040f8 1    rc 00000000 00000000 TCP segmentation contexts sent
TSCTFC    0x040fc 1    rc 00000000 00000000 TCP segmentation contexts that failed
RXCSUM    0x05000 1    rw 000003ff 00000000 receive checksum control
MTA       0x05200 128  rw ffffffff 00000000 multicast table: 4096 hash bits
RAL       0x05400 16*2 rw ffffffff 00000000 receive address, low
RAH       0x05404 16*2 rw 8003ffff 00000000 receive address, high
VFTA      0x05600 128  rw ffffffff 00000000 VLAN table: 4096 bits
WUC       0x05800 1    rw 0000000f 00000000 wake-up control
WUFC      0x05808 1    rw 000f00ff 00000000 wake-up filter control
WUS       0x05810 1    rw 00000000 00000000 wake-up status, cleared by writing ones
MANC      0x05820 1    rw ffffffff 00000000 management control
IPAV      0x05838 1    rw 000100ff 00000000 IP addresses valid
IP4AT     0x05840 4*2  rw ffffffff 00000000 IPv4 addresses
IP6AT     0x05880 4    rw ffffffff 00000000 IPv6 address
WUPL      0x05900 1    ro 00000000 00000000 wake-up packet length
WUPM      0x05a00 32   ro 00000000 00000000 wake-up packet memory
SWSM      0x05b50 1    rw 0000000f 00000000 software semaphore, see above
FFLT      0x05f00 4*2  rw 000007ff 00000000 flexible filter lengths
`;

export type RegisterAccess = 'rw' | 'ro' | 'rc' | 'wo' | 'alias';

export interface RegisterInfo {
  readonly name: string;
  /** Byte offset in BAR 0. */
  readonly offset: number;
  readonly count: number;
  /** Bytes from one to the next. */
  readonly stride: number;
  readonly access: RegisterAccess;
  /** Which register an alias stands for. */
  readonly aliasOf: string;
  readonly writable: number;
  readonly reset: number;
  readonly meaning: string;
}

function parseTable(text: string): RegisterInfo[] {
  return text
    .trim()
    .split('\n')
    .map((line) => {
      const [name, offset, count, access, ...rest] = line.split(/\s+/);
      const alias = access.startsWith('=');
      const [number, stride] = count.split('*');
      return {
        name,
        offset: Number(offset),
        count: Number(number),
        stride: 4 * Number(stride ?? 1),
        access: alias ? 'alias' : (access as RegisterAccess),
        aliasOf: alias ? access.slice(1) : '',
        writable: alias ? 0 : Number.parseInt(rest[0], 16) | 0,
        reset: alias ? 0 : Number.parseInt(rest[1], 16) | 0,
        meaning: rest.slice(alias ? 0 : 2).join(' '),
      };
    });
}

export const REGISTERS: readonly RegisterInfo[] = parseTable(TABLE);

/** By word of BAR 0, 0 for words that hold no register. */
export const KIND_NONE = 0;
export const KIND_RW = 1;
export const KIND_RO = 2;
export const KIND_RC = 3;
export const KIND_WO = 4;

export interface RegisterMap {
  /** KIND_* by word. */
  readonly kind: Uint8Array;
  /** Writable bits by word. */
  readonly writable: Int32Array;
  /** Values after reset by word. */
  readonly reset: Int32Array;
  /** The byte offset that a word stands for: its own, or the register's that it is an alias of. */
  readonly target: Uint16Array;
}

function buildMap(registers: readonly RegisterInfo[]): RegisterMap {
  const words = REGISTER_BYTES / 4;
  const map: RegisterMap = {
    kind: new Uint8Array(words),
    writable: new Int32Array(words),
    reset: new Int32Array(words),
    target: Uint16Array.from({ length: words }, (_, word) => 4 * word),
  };
  const kinds: Record<RegisterAccess, number> = {
    rw: KIND_RW,
    ro: KIND_RO,
    rc: KIND_RC,
    wo: KIND_WO,
    alias: KIND_NONE,
  };
  for (const register of registers) {
    const original = registers.find((other) => other.name === register.aliasOf);
    for (let i = 0; i < register.count; i++) {
      const word = (register.offset + i * register.stride) >> 2;
      map.kind[word] = kinds[register.access];
      map.writable[word] = register.writable;
      map.reset[word] = register.reset;
      if (original !== undefined) map.target[word] = original.offset + i * original.stride;
    }
  }
  return map;
}

export const REGISTER_MAP: RegisterMap = buildMap(REGISTERS);
