{
  "targets": [
    {
      "target_name": "netemu",
      "conditions": [["OS!='linux'", { "type": "none" }]],
      "sources": [
        "src/addon.c", "src/address.c", "src/context.c", "src/datagram.c", "src/fds.c", "src/kernels.c",
        "src/landlock.c", "src/memory.c", "src/network-errors.c", "src/poll.c", "src/sandbox.c", "src/sigbus.c", "src/socket.c", "src/stream.c", "src/tap.c"
      ],
      "cflags": ["-std=gnu11", "-O2", "-fvisibility=hidden", "-fno-strict-aliasing", "-Wall", "-Wextra"],
      "ldflags": ["-Wl,-z,nodelete"]
    }
  ]
}
