/**
 * From PCI pins to the interrupt lines that a qtest client listens to.
 *
 * On an i440FX PC the INTA# of slot s arrives at PIRQ (s - 1) mod 4 of the PIIX3 (82371SB datasheet, section 2.2.4, and the board's own swizzle), whose PIRQRC[A:D]
 * registers (configuration offsets 60h..63h) name the ISA interrupt that it drives, or none (bit 7). ISA interrupt n is input n of both the 8259
 * pair and the I/O APIC. Several pins may share a line: it is high while any of them is.
 */

/** PIRQRC: the PIRQ is not routed to an ISA interrupt. */
const ROUTE_DISABLED = 0x80;
const PIRQS = 4;
const ISA_LINES = 16;

export class InterruptLines {
  /** Told when an ISA line's level changes. */
  onChange: ((line: number, level: boolean) => void) | null = null;
  /** PIRQRC[A:D]. */
  readonly #routes = new Uint8Array(PIRQS).fill(ROUTE_DISABLED);
  /** Pins that are high, by PIRQ. */
  readonly #high = new Uint16Array(PIRQS);
  #levels = 0;

  /** `pin`: 0 for INTA#. The caller tells of changes only. */
  setPin(slot: number, pin: number, level: boolean): void {
    const pirq = (slot - 1 + pin) & (PIRQS - 1);
    this.#high[pirq] += level ? 1 : -1;
    this.#update();
  }

  setRoute(pirq: number, value: number): void {
    this.#routes[pirq] = value;
    this.#update();
  }

  level(line: number): boolean {
    return ((this.#levels >> line) & 1) !== 0;
  }

  #update(): void {
    let levels = 0;
    for (let pirq = 0; pirq < PIRQS; pirq++) {
      const route = this.#routes[pirq];
      if (this.#high[pirq] > 0 && (route & ROUTE_DISABLED) === 0) levels |= 1 << (route & (ISA_LINES - 1));
    }
    const changed = levels ^ this.#levels;
    this.#levels = levels;
    for (let line = 0; line < ISA_LINES; line++) {
      if (((changed >> line) & 1) !== 0) this.onChange?.(line, ((levels >> line) & 1) !== 0);
    }
  }
}
