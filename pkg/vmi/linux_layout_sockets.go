package vmi

// socketLayout is for sockets, the tables of them and the namespaces that they are in.
// The tags are explained at linuxLayout.
type socketLayout struct {
	SockPort      field `btf:"sock.__sk_common.skc_num"`
	SockPeerPort  field `btf:"sock.__sk_common.skc_dport"`
	SockPeer4     field `btf:"sock.__sk_common.skc_daddr"`
	SockLocal4    field `btf:"sock.__sk_common.skc_rcv_saddr"`
	SockPeer6     field `btf:"sock.__sk_common.skc_v6_daddr?"`
	SockLocal6    field `btf:"sock.__sk_common.skc_v6_rcv_saddr?"`
	SockFamily    field `btf:"sock.__sk_common.skc_family"`
	SockState     field `btf:"sock.__sk_common.skc_state"`
	SockV6Only    field `btf:"sock.__sk_common.skc_ipv6only"`
	SockNet       field `btf:"sock.__sk_common.skc_net.net"`
	SockNode      field `btf:"sock.__sk_common.skc_node"`
	SockBindNode  field `btf:"sock.__sk_common.skc_bind_node"`
	SockProtocol  field `btf:"sock.sk_protocol"`
	SockType      field `btf:"sock.sk_type"`
	SockSocket    field `btf:"sock.sk_socket"`
	SockULPOps    field `btf:"inet_connection_sock.icsk_ulp_ops?"`
	SockULPData   field `btf:"inet_connection_sock.icsk_ulp_data?"`
	SubflowConn   field `btf:"mptcp_subflow_context.conn?"`
	SocketFile    field `btf:"socket.file"`
	SocketSock    field `btf:"socket.sk"`
	SocketInode   field `btf:"socket_alloc.vfs_inode"`
	HashBind      field `btf:"inet_hashinfo.bhash"`
	HashBindSize  field `btf:"inet_hashinfo.bhash_size"`
	BindHead      field `btf:"inet_bind_hashbucket.chain"`
	BindHeadSize  field `btf:"sizeof inet_bind_hashbucket"`
	BucketNode    field `btf:"inet_bind_bucket.node"`
	BucketPort    field `btf:"inet_bind_bucket.port"`
	BucketNet     field `btf:"inet_bind_bucket.ib_net.net"`
	BucketOwners  field `btf:"inet_bind_bucket.owners?"`
	BucketSecond  field `btf:"inet_bind_bucket.bhash2?"`
	Bucket2Node   field `btf:"inet_bind2_bucket.bhash_node?"`
	Bucket2Owners field `btf:"inet_bind2_bucket.owners?"`

	UDPHash     field `btf:"udp_table.hash"`
	UDPMask     field `btf:"udp_table.mask"`
	UDPSlotHead field `btf:"udp_hslot.head"`
	UDPSlotSize field `btf:"sizeof udp_hslot"`
	RawHash     field `btf:"raw_hashinfo.ht?"`
	PingHash    field `btf:"ping_table.hash?"`
	NetList     field `btf:"net.list"`
	NetHashMix  field `btf:"net.hash_mix"`
	NetUDPTable field `btf:"net.ipv4.udp_table?"`
	NetPacket   field `btf:"net.packet.sklist?"`
	NetXDP      field `btf:"net.xdp.list?"`
	AcceptQueue field `btf:"inet_connection_sock.icsk_accept_queue.qlen?"`
	EstHash     field `btf:"inet_hashinfo.ehash?"`
	EstMask     field `btf:"inet_hashinfo.ehash_mask?"`
	EstHead     field `btf:"inet_ehash_bucket.chain?"`
	EstSlotSize field `btf:"sizeof inet_ehash_bucket?"`

	ListenHash     field `btf:"inet_hashinfo.lhash2?"`
	ListenMask     field `btf:"inet_hashinfo.lhash2_mask?"`
	ListenSlots    field `btf:"inet_hashinfo.listening_hash?"`
	ListenHead     field `btf:"inet_listen_hashbucket.nulls_head?"`
	ListenHeadOld  field `btf:"inet_listen_hashbucket.head|inet_listen_hashbucket.nulls_head?"`
	ListenSlotSize field `btf:"sizeof inet_listen_hashbucket?"`
	SockOwned      field `btf:"sock.sk_lock.owned?"`
	SockLock       field `btf:"sock.sk_lock.slock?"`

	ProtoSize   field `btf:"proto.obj_size?"`
	ProtoHash   field `btf:"proto.h?"`
	NetDeathRow field `btf:"net.ipv4.tcp_death_row.hashinfo?"`
}
