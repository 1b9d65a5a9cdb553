/** What the user network counts. RX and TX are the guest's: TX is what it sent to us. The TCP engine has its own (tcp.*). */
export class UserStats {
  txFrames = 0;
  txDropShort = 0;
  txDropNotForUs = 0;
  txDropVlan = 0;
  txDropUnknownEtherType = 0;
  txDropBadIp = 0;
  txDropBadIpChecksum = 0;
  txDropBadSource = 0;
  txDropBadDestination = 0;
  txDropUnknownProtocol = 0;
  txDropFamilyOff = 0;
  txDropRestricted = 0;
  txDropDenied = 0;
  txDropNoHeaderRoom = 0;
  txDropNoSlot = 0;
  txTtlExpired = 0;
  rxFrames = 0;
  rxDropQueueFull = 0;
  rxDropNoSlot = 0;
  rxDropTooLong = 0;
  arpRequests = 0;
  arpDropMalformed = 0;
  ndpMessages = 0;
  ndpDropMalformed = 0;
  routerAdvertisements = 0;
  dhcpRequests = 0;
  dhcpLeases = 0;
  dhcpDropMalformed = 0;
  dhcpDropNoLease = 0;
  icmpEchoes = 0;
  icmpErrorsSent = 0;
  /** Errors of routers and far ends that the host's sockets kept, told to the guest. */
  networkErrors = 0;
  icmpDropMalformed = 0;
  icmpDropUnsupported = 0;
  pingFlows = 0;
  pingFlowsEvicted = 0;
  pingDropNoSocket = 0;
  /** Replies to others, which a raw socket hears too. */
  pingDropNotOurs = 0;
  fragmentsReceived = 0;
  fragmentDatagrams = 0;
  fragmentDropOverlap = 0;
  fragmentDropLimit = 0;
  fragmentDropTimeout = 0;
  fragmentDropMalformed = 0;
  udpFlowsOpened = 0;
  udpFlowsExpired = 0;
  /** The guest said that its port is closed. */
  udpFlowsRefused = 0;
  udpFlowsEvicted = 0;
  udpDatagramsOut = 0;
  udpDatagramsIn = 0;
  /** Runs of datagrams that the guest sent as one frame (USO). */
  udpRunsOut = 0;
  /** Runs of datagrams that the host received as one (UDP_GRO). */
  udpRunsIn = 0;
  udpDropMalformed = 0;
  udpDropBadChecksum = 0;
  udpDropNoSocket = 0;
  udpDropHostFull = 0;
  udpDropHostError = 0;
  dnsQueries = 0;
  /** Queries that were put to the next name server. */
  dnsFailovers = 0;
  dnsDropNoResolver = 0;
  dnsOwnAnswers = 0;
  dnsRefused = 0;
  tcpFlowsOpened = 0;
  tcpFlowsRefused = 0;
  tcpDropNoDescriptor = 0;
  tcpDropFlowLimit = 0;
  /** Connections that did not stand yet, ended for newer ones: there were too many of them. */
  tcpHalfOpenEvicted = 0;
  forwardConnections = 0;
  forwardDropNoGuest = 0;
  /** The client left before it was known who it was (PROXY protocol). */
  forwardDropGone = 0;
  tftpRequests = 0;
  tftpDropMalformed = 0;
}
