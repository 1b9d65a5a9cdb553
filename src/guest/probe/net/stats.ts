/** What the probe's IP host counts. RX and TX are the guest's own: this is the guest. */
export class HostStats {
  rxFrames = 0;
  rxBytes = 0;
  txFrames = 0;
  txBytes = 0;
  /** Not for our address, not a group of ours. */
  rxDropNotForUs = 0;
  /** An EtherType, protocol or port nobody here listens to. */
  rxDropUnknownProtocol = 0;
  /** A header that is short or lies about a length. */
  rxDropMalformed = 0;
  rxDropChecksum = 0;
  /** The probe does not reassemble: an IP fragment. */
  rxDropFragment = 0;
  rxDropNoPort = 0;
  /** No packet buffer free for a TCP segment: its sender retransmits. */
  rxDropNoBuffer = 0;
  /** A DHCP, DNS or echo reply that answers nothing we asked. */
  rxDropUnexpected = 0;
  /** All transmit places of the device are in use. */
  txDropNoRoom = 0;
  txDropNoRoute = 0;
  /** Held for an address that nobody answered for. */
  txDropUnresolved = 0;
  txDropTooLong = 0;
  txDropLinkDown = 0;
}
