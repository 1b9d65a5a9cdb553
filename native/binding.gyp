{
  "targets": [
    {
      "target_name": "netemu",
      "conditions": [["OS!='linux'", { "type": "none" }]],
      "sources": [
        "glue/addon.c", "glue/arguments.c", "glue/confinement.c", "glue/datagrams.c", "glue/descriptors.c", "glue/event-loop.c",
        "glue/handles.c", "glue/kernels.c", "glue/memory.c", "glue/sockets.c", "glue/streams.c", "glue/taps.c",
        "src/address.c", "src/context.c", "src/datagram.c", "src/fds.c", "src/kernels.c",
        "src/landlock.c", "src/memory.c", "src/network-errors.c", "src/poll.c", "src/sandbox.c", "src/sigbus.c", "src/socket.c", "src/stream.c", "src/tap.c"
      ],
      "cflags": ["-std=gnu11", "-O2", "-fvisibility=hidden", "-fno-strict-aliasing", "-Wall", "-Wextra"],
      "ldflags": ["-Wl,-z,nodelete"]
    }
  ]
}
